"""Ends training on this host when Sparseboard is stopped: runs save a checkpoint and go back to the queue.

Supervisors outlive the worker by design, so they are asked one by one. A process is taken for a supervisor only if its
command line names the run: process ids are used again.
"""

import contextlib
import socket
import time
from collections.abc import Callable

import psutil
from sqlalchemy.exc import SQLAlchemyError

from server.db.runs import active
from server.db.session import Database
from server.settings import Settings

_TIMEOUT_S = 30.0
"""Longer than a supervisor gives its trainer to save."""


def drain(settings: Settings, say: Callable[[str], None], is_impatient: Callable[[], bool]) -> None:
    """Stop the runs that train on this host and wait for the end of their processes.

    `is_impatient` says whether to wait no longer: then they are killed, and training goes on from the last checkpoint.
    """
    supervisors = _supervisors(settings)
    if not supervisors:
        return
    count = len(supervisors)
    say(f"stopping {count} run{'s' if count > 1 else ''}; training goes on from the queue at the next start")
    for process in supervisors:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    deadline = time.monotonic() + _TIMEOUT_S
    alive = supervisors
    while alive and time.monotonic() < deadline and not is_impatient():
        _, alive = psutil.wait_procs(alive, timeout=0.5)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _supervisors(settings: Settings) -> list[psutil.Process]:
    database = Database(settings)
    try:
        with database.read() as session:
            held = [(run.id, attempt.supervisor_pid) for run, attempt in active(session) if _is_here(attempt.host)]
    except SQLAlchemyError:  # no tables yet, or no database: nothing was started by us
        return []
    finally:
        database.engine.dispose()
    found = []
    for run_id, pid in held:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if run_id in process.cmdline():
                found.append(process)
    return found


def _is_here(host: str) -> bool:
    return host == socket.gethostname()
