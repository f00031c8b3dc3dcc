"""A small disk of its own that can be filled: a file system in memory, where the tests may mount one."""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from server.settings import Settings


class FullDisk:
    """A file system of `size_mb` megabytes at `root`. Skips the test by name where nothing may be mounted."""

    def __init__(self, root: Path, *, size_mb: int) -> None:
        self.root = root
        root.mkdir()
        options = ["-t", "tmpfs", "-o", f"size={size_mb}m", "none", str(root)]
        if os.geteuid() != 0 or subprocess.run(["mount", *options], capture_output=True).returncode != 0:
            pytest.skip("a disk that is full needs root and the right to mount a file system in memory")

    def move(self, settings: Settings) -> Settings:
        """The same deployment with its data folder on this disk."""
        data_dir = self.root / "data"
        shutil.copytree(settings.data_dir, data_dir)
        return settings.model_copy(update={"data_dir": data_dir})

    @property
    def _ballast(self) -> Path:
        return self.root / "ballast"

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take all room but `leave_bytes`."""
        with self._ballast.open("ab", buffering=0) as file:
            while (free := shutil.disk_usage(self.root).free - leave_bytes) > 0:
                with contextlib.suppress(OSError):  # a worker wrote something meanwhile
                    os.posix_fallocate(file.fileno(), self._ballast.stat().st_size, free)

    def free(self) -> None:
        self._ballast.unlink()

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.root)], check=True)
