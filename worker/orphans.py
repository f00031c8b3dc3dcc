"""Kills training processes that nobody holds any more, so that a run is never trained twice at once, and gives devices
back whose processes could not be killed until they are gone.
"""

import logging
import time

from sqlmodel import select

from server.db.runs import lift_quarantine
from server.db.session import Database
from server.db.tables import ACTIVE, DeviceLease, LeaseState, Run
from worker import processes

logger = logging.getLogger(__name__)

UNKILLABLE = "a training process could not be killed: it hangs in the kernel, and a reboot may be needed"

_SETTLE_S = 15.0
"""A supervisor that has just released its run may still be on its way out."""


def kill_orphans(database: Database) -> int:
    """Kill processes of this host that work for a run under an outdated fence, or for a run that is not active.

    Runs that this database does not know belong to another deployment and are left alone. Returns how many were killed.
    """
    found = list(processes.run_processes())
    if not found:
        return 0
    with database.read() as session:
        runs = {run_id: session.get(Run, run_id) for run_id in {entry.run_id for entry in found}}
    doomed = [entry for entry in found if _is_orphan(entry, runs[entry.run_id])]
    for entry in doomed:
        logger.warning("killing process %d of run %s, attempt %d", entry.process.pid, entry.run_id, entry.fence)
    processes.kill(entry.process for entry in doomed)
    return len(doomed)


def _is_orphan(entry: processes.RunProcess, run: Run | None) -> bool:
    if run is None:
        return False
    if entry.fence < run.fence:
        return True
    left_at = run.finished_at
    return run.state not in ACTIVE and left_at is not None and time.time() - left_at > _SETTLE_S


def lift_quarantines(database: Database, worker_id: str) -> int:
    """Give back the worker's quarantined devices whose processes have ended after all, in a reboot at the latest.

    Returns how many there were.
    """
    with database.read() as session:
        quarantined = session.exec(
            select(DeviceLease).where(DeviceLease.worker_id == worker_id, DeviceLease.state == LeaseState.QUARANTINED)
        ).all()
    free = [lease for lease in quarantined if not _has_processes(lease)]
    if free:
        with database.write() as session:
            for lease in free:
                lift_quarantine(session, lease, actor="worker", detail="its last process is gone")
    return len(free)


def _has_processes(lease: DeviceLease) -> bool:
    if not all(processes.is_gone(one) for one in lease.processes):
        return True
    return any(processes.run_processes(lease.run_id, up_to_fence=lease.attempt, node=lease.node))
