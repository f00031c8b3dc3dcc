"""Where installed packages keep their files. They are found, never imported: some cannot be, all would be slow."""

import importlib.util
from pathlib import Path

from sparsify_core.errors import DataError


def package_folder(name: str, *, needed_for: str) -> Path:
    """Folder of an installed package. Raises DataError when it is not installed."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"the package {name!r} is not installed, {needed_for} comes from it: run `make setup`, "
            "or `pip install 'sparseboard[demo]'`"
        )
    return Path(next(iter(spec.submodule_search_locations)))
