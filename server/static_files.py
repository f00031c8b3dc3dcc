"""Scripts, styles and pictures under addresses that change with their content, so that browsers ask for each once.

To ask whether all files of a page are still the same would take longer than all else that it does, the more so the
farther away the server is.
"""

import re
from functools import cache
from pathlib import Path

from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from markupsafe import Markup
from starlette.types import Scope

from server import bundles

_MARK = "v-"
_A_YEAR = "max-age=31536000, immutable"
_IMPORT = re.compile(r"""^(?:import|export)\b[^"']*"(\.{1,2}/[^"]+)";""", re.MULTILINE)


class StaticFolder(StaticFiles):
    """Serves a folder's files under their names, and under `prefix` for good."""

    def __init__(self, folder: Path) -> None:
        super().__init__(directory=folder, check_dir=False)
        self.prefix = _MARK + bundles.digest(folder)
        self._folder = folder
        self._bundles = bundles.read_manifest(folder)
        self.module = cache(self._module)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A page that was loaded before an upgrade finds its files too; they are just not kept."""
        prefix, _, rest = path.partition("/")
        response = await super().get_response(rest if prefix.startswith(_MARK) else path, scope)
        response.headers["Cache-Control"] = _A_YEAR if prefix == self.prefix else "no-cache"
        return response

    def _module(self, path: str) -> Markup:
        """The tags that load a module, e.g. `js/run.js`, and beforehand all that it imports: a browser finds these by
        reading it, and theirs by reading them, one step after the other.
        """
        at = f"/static/{self.prefix}"
        module, *imported = self._bundles.get(path) or self._with_imports(path)
        tags = [Markup('<link rel="modulepreload" href="{}/{}">').format(at, name) for name in imported]
        return Markup("").join([*tags, Markup('<script type="module" src="{}/{}"></script>').format(at, module)])

    def _with_imports(self, path: str) -> list[str]:
        """A module, what it imports, and what that imports, each once."""
        root = self._folder.resolve()
        found = [root / path]
        for module in found:
            named = (module.parent / name for name in _IMPORT.findall(module.read_text()))
            found += [file for file in dict.fromkeys(each.resolve() for each in named) if file not in found]
        return [file.relative_to(root).as_posix() for file in found]
