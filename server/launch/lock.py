"""One `sparseboard up` per data folder."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from server.launch.errors import LaunchError

_NAME = "sparseboard.lock"


def holder(data_dir: Path) -> dict[str, Any]:
    """What the lock's holder, or one that crashed, has written: `pid`, `url`, `children`. Empty when nobody has."""
    try:
        content = json.loads((data_dir / _NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # nobody, or written right now
        return {}
    return content if isinstance(content, dict) else {}


class DataFolderLock:
    """Held while Sparseboard runs on a data folder; the kernel releases it when the process ends, however it ends.

    The file tells the next one who holds it, and after a crash which children may have been left behind.
    """

    def __init__(self, data_dir: Path) -> None:
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            self._file = open(data_dir / _NAME, "a+", encoding="utf-8")  # noqa: SIM115 held for life
        except OSError as error:
            raise LaunchError(
                f"the data folder {data_dir} cannot be used ({error.strerror}): choose another with --data-dir"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            found = holder(data_dir)
            raise LaunchError(
                f"Sparseboard runs on the data folder {data_dir} already (process {found.get('pid', 'unknown')}, "
                f"{found.get('url') or 'still starting'}): open that address, get a new login with "
                "`sparseboard login`, or choose another folder with --data-dir"
            ) from None
        self.left_behind: list[dict[str, Any]] = holder(data_dir).get("children", [])
        """Children of a `sparseboard up` that ended without stopping them: `{pid, command}`."""

    def write(self, *, url: str, children: list[dict[str, Any]]) -> None:
        """Say who holds the folder, where it answers, and which children there are."""
        self._file.seek(0)
        self._file.truncate()
        json.dump({"pid": os.getpid(), "url": url, "children": children}, self._file)
        self._file.flush()

    def release(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.close()
