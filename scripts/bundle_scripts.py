"""Bundle the scripts of web/static/js that pages load into web/static/bundles, with esbuild from node_modules.

Like all that set-up makes, bundles are never committed. It does nothing when they are of the present scripts.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from server import bundles

ROOT = Path(__file__).resolve().parent.parent
_LOADED = re.compile(r"""\bmodule\("(js/[^"]+)"\)""")


def main() -> None:
    """Bundle, or say why not: pages work without."""
    static = ROOT / "web" / "static"
    scripts = loaded(ROOT / "web" / "templates")
    if bundles.read_manifest(static).keys() == set(scripts):
        return
    esbuild = next((ROOT / "node_modules" / "@esbuild").glob("*/bin/esbuild"), None)
    if esbuild is None:
        sys.stderr.write("note: no esbuild in node_modules, so scripts are not bundled: pages load them one by one\n")
        return
    bundle(esbuild, static, scripts)


def loaded(templates: Path) -> list[str]:
    """The scripts that templates load, e.g. `js/run.js`."""
    return sorted({name for file in templates.rglob("*.html") for name in _LOADED.findall(file.read_text())})


def bundle(esbuild: Path, static: Path, scripts: list[str]) -> None:
    """One bundle for each script; what several share lies in chunks of its own, so that there is one of each module.

    Raises subprocess.CalledProcessError: esbuild has said why.
    """
    how = ["--bundle", "--splitting", "--format=esm", "--minify", "--sourcemap", "--log-level=warning"]
    with tempfile.TemporaryDirectory() as folder:
        meta = Path(folder) / "meta.json"
        where = [f"--outdir={bundles.FOLDER}", f"--metafile={meta}"]
        shutil.rmtree(static / bundles.FOLDER, ignore_errors=True)
        subprocess.run([esbuild.resolve(), *scripts, *how, *where], cwd=static, check=True)
        outputs = json.loads(meta.read_text())["outputs"]
    entries = {one["entryPoint"]: path for path, one in outputs.items() if one.get("entryPoint")}
    bundles.write_manifest(static, {script: _with_imports(outputs, entries[script]) for script in scripts})


def _with_imports(outputs: dict[str, dict[str, list[dict[str, str]]]], path: str) -> list[str]:
    """A bundle, what it imports, and what that imports, each once."""
    found = [path]
    for each in found:
        found += [one["path"] for one in outputs[each]["imports"] if one["path"] not in found]
    return found


if __name__ == "__main__":
    main()
