"""The way from the training processes to their log: a pipe, and a relay at its end that keeps floods out."""

import os
import subprocess
import sys
from pathlib import Path

from worker.processes import marks

_FINISH_S = 3.0


class LogPipe:
    """Hand `inlet` to the training processes, then close it here with `close_inlet`.

    The outlet stays open in this process too: a relay that dies breaks no training, the next one goes on reading.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._outlet, self.inlet = os.pipe()
        self._relay = self._start()

    def close_inlet(self) -> None:
        os.close(self.inlet)

    def look_after(self) -> None:
        """Start a new relay in the place of one that has died."""
        if self._relay.poll() not in (None, 0):
            self._relay = self._start()

    def finish(self) -> None:
        """Wait until everything is in the log; all who write must be gone."""
        try:
            self._relay.wait(_FINISH_S)
        except subprocess.TimeoutExpired:  # somebody of another session has the pipe: the run is over all the same
            self._relay.kill()
            self._relay.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        # Not a process of the run: it would be killed with them, before it has read their last words.
        environment = {name: value for name, value in os.environ.items() if name not in marks("", 0, 0)}
        with self._path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "worker.log_relay"],
                stdin=self._outlet,
                stdout=log,
                env=environment,
                start_new_session=True,
            )
