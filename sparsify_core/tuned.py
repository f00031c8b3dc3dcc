"""The file that keeps which kernel launches were found fastest on this machine. Torch-free.

It can be deleted at any time. What cannot be read or written is as if it were not there.
"""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter


class Tuned(BaseModel):
    """The chosen `launch`, and the median times of it and of the default."""

    model_config = ConfigDict(frozen=True)

    launch: dict[str, int]
    ms: float
    default_ms: float


_ENTRIES = TypeAdapter(dict[str, Tuned])


def path() -> Path:
    """Where it lies: in the user's folder for what can be made anew."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root, "sparseboard", "kernels.json")


def read(name: str) -> Tuned | None:
    """What was found for `name`: a device, versions, an operation, a shape and a number format."""
    return _read_all().get(name)


def write(name: str, entry: Tuned) -> None:
    """Add or replace one entry. Of two processes that write at the same time one may be forgotten, to be found anew."""
    entries = _read_all() | {name: entry}
    file = path()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=file.name, delete=False) as staging:
            try:
                staging.write(_ENTRIES.dump_json(entries, indent=1))
                staging.flush()
                os.replace(staging.name, file)
            except OSError:
                os.unlink(staging.name)


def _read_all() -> dict[str, Tuned]:
    try:
        return _ENTRIES.validate_json(path().read_bytes())
    except (OSError, ValueError):  # pydantic's error is a ValueError
        return {}
