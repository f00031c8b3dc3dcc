"""Copy the browser files that npm installed, with their licences, from node_modules to web/static/vendor/.

They are installed, never committed: `npm ci` fetches exactly what package-lock.json names.
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "node_modules"
TARGET = ROOT / "web" / "static" / "vendor"

FILES = {
    "htmx.org/dist/htmx.min.js": "htmx.min.js",
    "htmx.org/LICENSE": "htmx.LICENSE.txt",
    "uplot/dist/uPlot.iife.min.js": "uPlot.iife.min.js",
    "uplot/dist/uPlot.min.css": "uPlot.min.css",
    "uplot/LICENSE": "uPlot.LICENSE.txt",
}
"""Path below node_modules -> name below web/static/vendor."""


def main() -> int:
    """Copy every file, or say which one is missing and what to do."""
    missing = [name for name in FILES if not (SOURCE / name).is_file()]
    if missing:
        sys.stderr.write(
            f"vendor_assets: {missing[0]} is not in {SOURCE.name}: run `npm ci` in the project's folder first\n"
        )
        return 1
    TARGET.mkdir(parents=True, exist_ok=True)
    for old in TARGET.iterdir():
        if old.name not in FILES.values():
            old.unlink()
    for name, target in FILES.items():
        shutil.copyfile(SOURCE / name, TARGET / target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
