"""EleutherAI's own package, run in a process of its own as the judge of what is equal to it."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

PACKAGES = ["eai-sparsify==1.3.3", "simple-parsing==0.1.9", "docstring-parser==0.18.0", "einops==0.8.2"]


def install() -> Path:
    """Folder with upstream's package, to stand beside this environment's torch; made once and kept."""
    cache = Path(os.environ.get("SPARSEBOARD_TEST_CACHE", Path.home() / ".cache" / "sparseboard-tests"))
    folder = cache / "eai-sparsify-1.3.3"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:  # several processes of one test run ask at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "sparsify").is_dir():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
            subprocess.run([*pip, *PACKAGES], check=True)
    return folder


class Oracle:
    """`oracle.run(program, *arguments)`: run Python code that may import `sparsify`."""

    def __init__(self, folder: Path) -> None:
        self._environment = {**os.environ, "PYTHONPATH": str(folder), "SPARSIFY_DISABLE_TRITON": "1"}

    def run(self, program: str, *arguments: object) -> None:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
