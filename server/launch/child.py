"""One supervised process of the tree: started in its own session, restarted when it dies, stopped by SIGTERM."""

import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

from server.launch.errors import LaunchError
from sparsify_core.parent import end_with_parent

_QUICK_S = 10.0
"""Dying this soon after its start is a quick death."""
_MAX_QUICK_DEATHS = 5
_MAX_PAUSE_S = 8.0
_LOG_BYTES = 10 << 20


class Child:
    """A process that should run as long as Sparseboard does. Ctrl-C in the terminal reaches only the launcher.

    Without a `log` it writes to where the launcher does, as a container wants it.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        log: Path | None,
        environment: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
    ) -> None:
        self.name = name
        self.command = command
        self.log = log
        self._environment = environment
        self._stdin = stdin
        self._quick_deaths = 0
        self._start_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._is_wanted = False

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        self._is_wanted = True
        with self._output() as output:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL if self._stdin is None else subprocess.PIPE,
                stdout=output,
                stderr=None if output is None else subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
                preexec_fn=end_with_parent(),  # safe: the launcher has one thread
            )
        if self._process.stdin is not None and self._stdin is not None:
            self._process.stdin.write(self._stdin)
            self._process.stdin.close()
        self._started_at = time.monotonic()

    def _output(self) -> AbstractContextManager[BinaryIO | None]:
        if self.log is None:
            return nullcontext()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".old.log"))
        return self.log.open("ab")

    def look_after(self) -> bool:
        """Start it again when it has died; returns whether that was done. Raises LaunchError when it keeps dying."""
        now = time.monotonic()
        if not self._is_wanted or self.is_running:
            return False
        if self._start_at == 0.0:
            quick = now - self._started_at < _QUICK_S
            self._quick_deaths = self._quick_deaths + 1 if quick else 1
            if self._quick_deaths >= _MAX_QUICK_DEATHS:
                raise LaunchError(f"the {self.name} keeps ending right after its start: {self._last_words()}")
            self._start_at = now + min(_MAX_PAUSE_S, 0.5 * 2 ** (self._quick_deaths - 1))
        if now < self._start_at:
            return False
        self._start_at = 0.0
        self.start()
        return True

    def _last_words(self) -> str:
        if self.log is None:
            return "it said why above"
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if self.log.exists() else []
        return f"{lines[-1].strip() if lines else 'it said nothing'} (see {self.log})"

    def ask_to_stop(self) -> None:
        self._is_wanted = False
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self, timeout_s: float = 5.0) -> None:
        """SIGTERM, and SIGKILL after `timeout_s`."""
        self.ask_to_stop()
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
