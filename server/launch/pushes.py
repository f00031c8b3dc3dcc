"""Ends the uploads to the Hub that the server has started: they are processes of their own and would outlive it."""

import contextlib
import time

import psutil
from sqlalchemy.exc import SQLAlchemyError

from server.db.session import Database
from server.services import hub
from server.settings import Settings

_MODULE = "server.push"
_TIMEOUT_S = 3.0


def end_pushes(settings: Settings) -> None:
    """End them and write down that they were interrupted. The server must be gone: it could start another one."""
    database = Database(settings)
    try:
        with database.read() as session:
            push_ids = {push.id for push in hub.list_pushes(session) if push.state == "running"}
        if push_ids:
            _end(push_ids)
            with database.write() as session:
                hub.fail_interrupted(session, time.time())
    except SQLAlchemyError:  # no tables yet, or no database: the next start writes it down
        return
    finally:
        database.engine.dispose()


def _end(push_ids: set[str]) -> None:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if _MODULE in command and not push_ids.isdisjoint(command):
                process.terminate()
                found.append(process)
    _, alive = psutil.wait_procs(found, timeout=_TIMEOUT_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=_TIMEOUT_S)
