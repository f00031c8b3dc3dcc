"""The words of the state machine: where a run can be and what a user can want of it."""

from enum import StrEnum


class RunState(StrEnum):
    """Where a run is. Written by the lease holder, the reaper, or the API when there is no holder."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    PAUSED = "paused"
    RETRY_WAIT = "retry_wait"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Intent(StrEnum):
    """What the user wants of a run. Written by the API alone."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"


ACTIVE = (RunState.STARTING, RunState.RUNNING, RunState.STOPPING)
"""States in which a worker holds the run's lease."""

WAITING = (RunState.QUEUED, RunState.RETRY_WAIT, RunState.PAUSED)
"""States in which nobody holds the run and it keeps its place in the queue."""

TERMINAL = (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)
"""States that nothing leaves."""
