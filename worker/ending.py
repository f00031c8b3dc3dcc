"""How an attempt ended and what follows for its run: one judgement for the supervisor and the reaper."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from server.db.runs import release
from server.db.session import Database
from server.db.tables import Intent, Run, RunState
from server.settings import Settings
from sparsify_core.events import AttemptFinished, parse
from sparsify_core.rundir import RunDir
from worker.ingest import ingest, prune_checkpoints

MAX_LOSSES = 1
"""How often a run whose processes vanished goes back to the queue before it fails."""

_TAIL_LINES = 200
_TAIL_BYTES = 64 << 10
_KILLED = re.compile(r"Signal (\d+) \((SIG[A-Z0-9]+)\) received by PID")


@dataclass(frozen=True)
class Evidence:
    """What is known about an attempt whose processes are gone."""

    finished: AttemptFinished | None
    has_checkpoint: bool
    returncode: int | None
    """Exit status of torchrun; None when the supervisor vanished too."""
    error: str
    """What the trainer said about the error that ended it, or empty."""
    was_drained: bool = False
    """Whether the host asked the supervisor to give the run back."""


@dataclass(frozen=True)
class Ending:
    """What becomes of the run."""

    to: RunState
    outcome: str
    reason_code: str = ""
    message: str = ""
    counts_as_loss: bool = False


def judge(evidence: Evidence, *, intent: Intent, losses: int) -> Ending:
    """Decide. Completion wins over a cancel that came too late; a cancel wins over any failure."""
    finished = evidence.finished
    if finished and finished.outcome == "completed":
        if evidence.has_checkpoint:
            return Ending(RunState.COMPLETED, "completed")
        return Ending(RunState.FAILED, "failed", "checkpoint_missing", "training ended without a checkpoint on disk")
    if intent == Intent.CANCEL:
        return Ending(RunState.CANCELLED, "stopped")
    if evidence.was_drained:
        return Ending(RunState.QUEUED, "interrupted", message="interrupted by shutdown, continues at the next start")
    if finished and finished.outcome == "failed":
        return Ending(RunState.FAILED, "failed", finished.reason_code or "failed", finished.message)
    if evidence.returncode is None or (finished and finished.outcome == "stopped"):
        if losses < MAX_LOSSES:
            message = "the training processes vanished, the run is queued again"
            return Ending(RunState.QUEUED, "lost", "worker_lost", message, counts_as_loss=True)
        message = f"the training processes vanished {losses + 1} times: the machine was shut down or killed them"
        return Ending(RunState.FAILED, "lost", "worker_lost", message, counts_as_loss=True)
    return Ending(RunState.FAILED, "failed", "trainer_crashed", evidence.error or _exit_sentence(evidence.returncode))


def _exit_sentence(returncode: int) -> str:
    if returncode < 0:
        return f"the trainer was killed by signal {-returncode}"
    return f"the trainer ended with exit code {returncode}: the end of its log says more"


def conclude(
    database: Database,
    settings: Settings,
    run_id: str,
    fence: int,
    *,
    actor: str,
    returncode: int | None,
    was_drained: bool = False,
) -> RunState | None:
    """Read the attempt's last events, judge, and release the run. All its processes must be gone.

    Returns the run's new state, or None when the attempt did not hold the run any more.
    """
    run_dir = settings.run_dir(run_id)
    ingest(database, run_dir, run_id, fence)
    prune_checkpoints(database, run_dir, run_id)
    log = read_tail(run_dir.log(fence))
    evidence = Evidence(
        finished=finished_event(run_dir.events(fence)),
        has_checkpoint=bool(run_dir.published()),
        returncode=returncode,
        error=error_message(run_dir, fence, log),
        was_drained=was_drained,
    )
    with database.write() as session:
        run = session.get(Run, run_id)
        if run is None:
            return None
        ending = judge(evidence, intent=Intent(run.intent), losses=run.failures)
        released = release(
            session,
            run_id,
            fence,
            ending.to,
            actor=actor,
            outcome=ending.outcome,
            detail=ending.message,
            reason_code=ending.reason_code,
            message=ending.message if ending.to == RunState.FAILED else "",
            log_tail=log if ending.to == RunState.FAILED else "",
            failures=run.failures + (1 if ending.counts_as_loss else 0),
        )
    return ending.to if released else None


def finished_event(path: Path) -> AttemptFinished | None:
    """The event that closes an event file, if there is one."""
    for line in reversed(_tail_bytes(path).splitlines()):
        try:
            event = parse(line)
        except ValueError:
            continue
        return event if isinstance(event, AttemptFinished) else None
    return None


def error_message(run_dir: RunDir, attempt: int, log: str) -> str:
    """Why the trainer broke, in one sentence: from torchrun's error file, else from what its log says of signals."""
    try:
        content = json.loads(run_dir.error_file(attempt).read_text(encoding="utf-8"))
        message = content["message"]["message"] if isinstance(content["message"], dict) else content["message"]
        return f"the trainer broke: {str(message).strip()[:2000]}"
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no error file: the trainer had no chance to write one
    killed = _KILLED.search(log)
    if killed is None:
        return ""
    number, name = killed.groups()
    hint = ": the machine probably ran out of memory" if name == "SIGKILL" else ""
    return f"the trainer was killed by signal {number} ({name}){hint}"


def read_tail(path: Path) -> str:
    """The last lines of a log."""
    lines = _tail_bytes(path).decode("utf-8", errors="replace").replace("\x00", "").splitlines()
    return "\n".join(lines[-_TAIL_LINES:])


def _tail_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read()
    except FileNotFoundError:
        return b""
