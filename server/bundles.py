"""The pages' scripts in bundles: what scripts/bundle_scripts.py made of `web/static/js`.

A page that loads twenty small modules spends longer on asking for them than on running them, the more so the farther
away the server is. Bundles that are missing, or of other scripts than those that lay there when the server started,
are not used: who edits a script and starts the server again has the modules themselves.
"""

import hashlib
import json
from pathlib import Path

FOLDER = "bundles"
_MANIFEST = "manifest.json"


def digest(folder: Path) -> str:
    """Of the names and contents of all files in a folder."""
    found = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{file.relative_to(folder)}\0{file.stat().st_size}\0".encode())
        found.update(file.read_bytes())
    return found.hexdigest()[:12]


def write_manifest(static: Path, files: dict[str, list[str]]) -> None:
    """Note of each script that pages load, e.g. `js/run.js`, its bundle and what that imports, as paths in `static`."""
    manifest = {"of": digest(static / "js"), "files": files}
    written = static / FOLDER / f"{_MANIFEST}.new"
    written.write_text(json.dumps(manifest, indent=2) + "\n")
    written.rename(static / FOLDER / _MANIFEST)


def read_manifest(static: Path) -> dict[str, list[str]]:
    """What `write_manifest` noted; nothing where that was of other scripts."""
    file = static / FOLDER / _MANIFEST
    if not file.is_file():
        return {}
    manifest = json.loads(file.read_text())
    files: dict[str, list[str]] = manifest["files"] if manifest["of"] == digest(static / "js") else {}
    return files
