"""Ends what a worker trains when Sparseboard is stopped: runs save a checkpoint and go back to the queue.

Supervisors outlive the worker by design, so they are asked one by one. They are found by their command line, which
names the run: a process id in the database may be missing yet, or belong to another process by now.
"""

import contextlib
import time
from collections.abc import Callable

import psutil
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import select

from server.db.runs import active
from server.db.session import Database
from server.db.tables import Worker
from server.settings import Settings

_MODULES = {"worker.supervisor", "worker.leader", "worker.member"}
_TIMEOUT_S = 30.0
"""Longer than a supervisor gives its trainer to save."""


def drain(settings: Settings, say: Callable[[str], None], is_impatient: Callable[[], bool]) -> None:
    """Stop the runs that this machine's worker trains and wait for the end of their processes.

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
            mine = session.exec(select(Worker.id).where(Worker.name == settings.worker_name)).first()
            held = [node for _, node in active(session) if node.worker_id == mine]
    except SQLAlchemyError:  # no tables yet, or no database: nothing was started by us
        return []
    finally:
        database.engine.dispose()
    nodes = {(node.run_id, str(node.attempt), str(node.node)) for node in held}
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if not _MODULES.isdisjoint(command) and tuple(command[-3:]) in nodes:
                found.append(process)
    return found
