"""How an attempt ended and what follows for its run: one judgement for the supervisor and the reaper."""

import errno
import json
import re
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from server.db.predictions import note_actual
from server.db.runs import endings_of, is_unchanged, nodes_of, release
from server.db.session import Database
from server.db.tables import Attempt, AttemptNode, Intent, Run, RunState
from server.settings import Settings
from sparsify_core.events import AttemptFinished, parse
from sparsify_core.rundir import RunDir
from worker.early_deaths import pause_if_runs_die_early
from worker.failures import FAILURES, UNKNOWN
from worker.ingest import ingest, prune_checkpoints

_FULL_BYTES = 1 << 20
"""A disk with less room counts as full."""
_TAIL_LINES = 200
_TAIL_BYTES = 64 << 10
_KILLED = re.compile(r"Signal (\d+) \(SIG[A-Z0-9]+\) received by PID")
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that nothing in a training process raises by itself."""
_LOST = ("worker_lost", "not_started")


@dataclass(frozen=True)
class Evidence:
    """What is known about an attempt whose processes are gone."""

    finished: AttemptFinished | None
    has_checkpoint: bool
    returncode: int | None
    """Exit status of torchrun; None when the supervisor vanished too."""
    error: str = ""
    """What the trainer said about the error that ended it, or empty."""
    killed_by: int | None = None
    """The signal that ended a training process."""
    is_stopping: bool = False
    """Whether the run was to give its devices back."""
    has_trained: bool = True
    """Whether the attempt made a step."""
    is_disk_full: bool = False
    may_roll_back: bool = False
    """Whether the run wants a loss that is not finite to be tried again from a checkpoint, and has one."""
    has_lost_node: bool = False
    """Whether one of several nodes vanished: then the others' complaints are no reason."""
    has_started: bool = True
    """Whether the node that vanished ever had a supervisor."""


@dataclass(frozen=True)
class Ending:
    """What becomes of the run."""

    to: RunState
    outcome: str
    reason_code: str = ""
    message: str = ""
    spends: Literal["", "failures", "losses"] = ""
    """The budget that pays for another try, or that is used up; empty also for a budget of the class's own."""


def judge(evidence: Evidence, *, intent: Intent, spent: Mapping[str, int]) -> Ending:
    """Decide. Completion wins over a stop that came too late, a cancel over any failure, a pause over those that would
    be tried again.

    Args:
        spent: how much of the budgets `failures` and `losses` is used, and how many attempts each reason code ended.
    """
    finished = evidence.finished
    if finished and finished.outcome == "completed" and evidence.has_checkpoint:
        return Ending(RunState.COMPLETED, "completed")
    if intent == Intent.CANCEL:
        return Ending(RunState.CANCELLED, "stopped")
    code, message = _cause(evidence)
    failure = FAILURES.get(code, UNKNOWN)
    used = spent.get(failure.budget or code, 0)
    is_retried = (
        used < failure.retries
        and (evidence.has_trained or not failure.needs_step)
        and (evidence.may_roll_back or not failure.needs_policy)
    )
    # A trainer that is stopped while it loads dies without a word: only an error that it reported counts.
    has_reported = finished is not None and finished.outcome == "failed" and code != "interrupted"
    if evidence.is_stopping and (is_retried or not has_reported):
        if intent == Intent.PAUSE:
            return Ending(RunState.PAUSED, "stopped")
        return Ending(RunState.QUEUED, "interrupted", message="gave its devices back and continues from the queue")
    outcome = "lost" if code in _LOST else "failed"
    message = message or failure.sentence
    if failure.pauses:
        return Ending(RunState.PAUSED, outcome, code, message)
    if is_retried:
        return Ending(RunState.RETRY_WAIT, outcome, code, message, spends=failure.budget)
    if failure.retries and used:
        message = f"{message} ({used + 1} attempts have failed so far)"
    return Ending(RunState.FAILED, outcome, code, message, spends=failure.budget)


def _cause(evidence: Evidence) -> tuple[str, str]:
    """Reason code and message of what ended an attempt before it was complete."""
    finished = evidence.finished
    if finished and finished.outcome == "completed":
        return "checkpoint_missing", ""
    if not evidence.has_started:
        return "not_started", ""
    if evidence.has_lost_node:
        return "worker_lost", ""
    if evidence.killed_by in _FROM_OUTSIDE and finished and finished.reason_code == "communication_error":
        return "killed", _signal_sentence(evidence.killed_by)
    if finished and finished.outcome == "failed":
        return finished.reason_code or "trainer_crashed", finished.message
    if evidence.is_disk_full and evidence.returncode != 0:
        return "disk_full", ""  # a trainer cannot write down why it ends either
    if evidence.returncode is None or (finished and finished.outcome == "stopped"):
        return "worker_lost", ""
    number = evidence.killed_by or max(0, -evidence.returncode)
    if number:
        return ("killed" if number in _FROM_OUTSIDE else "crashed"), evidence.error or _signal_sentence(number)
    return "trainer_crashed", evidence.error or (
        f"the trainer ended with exit code {evidence.returncode}: the end of its log says more"
    )


def conclude(
    database: Database,
    settings: Settings,
    run_id: str,
    fence: int,
    *,
    actor: str,
    returncode: int | None,
    is_drained: bool = False,
    cause: AttemptFinished | None = None,
    lost: AttemptNode | None = None,
    has_lost_node: bool = False,
    node: int = 0,
) -> RunState | None:
    """Read the attempt's last events, judge, and release the run. All its processes must be gone.

    Args:
        is_drained: the host asked the holder to give the run back.
        cause: why the holder ended the attempt, or could not start it; counts where the trainer has said nothing.
        lost: the node that the caller, then the reaper, saw dead or silent. If it has shown a sign of life since,
            the run is left alone.
        has_lost_node: one of several nodes vanished.
        node: the one that the caller speaks for.

    Returns the run's new state, or None when it was left alone or the attempt did not hold it any more.
    """
    run_dir = settings.run_dir(run_id)
    ingest(database, run_dir, run_id, fence)
    prune_checkpoints(database, run_dir, run_id)
    with database.read() as session:
        numbers = [each.node for each in nodes_of(session, run_id, fence)]
    log = "\n".join(read_tail(run_dir.log(fence, number)) for number in numbers)
    evidence = Evidence(
        finished=finished_event(run_dir.events(fence)) or cause,
        has_checkpoint=bool(run_dir.published()),
        returncode=returncode,
        error=next(filter(None, (error_message(run_dir, fence, number) for number in numbers)), ""),
        killed_by=killed_by(log),
        is_disk_full=_is_disk_full(run_dir.root if run_dir.root.is_dir() else settings.data_dir),
        has_lost_node=has_lost_node,
        has_started=lost is None or lost.supervisor_pid > 0,
    )
    with database.write() as session:
        run = session.get(Run, run_id, with_for_update=True)
        attempt = session.get(Attempt, (run_id, fence))
        if run is None or attempt is None or (lost and not is_unchanged(session, lost, with_for_update=True)):
            return None
        evidence = replace(
            evidence,
            is_stopping=is_drained or run.state == RunState.STOPPING,
            has_trained=run.step > attempt.resumed_step,
            may_roll_back=run.config.get("nan_policy") == "rollback" and evidence.has_checkpoint,
        )
        spent = {"failures": run.failures, "losses": run.losses}
        ending = judge(evidence, intent=Intent(run.intent), spent=spent | endings_of(session, run_id))
        if ending.spends:
            spent[ending.spends] += 1
        released = release(
            session,
            run_id,
            fence,
            ending.to,
            actor=actor,
            outcome=ending.outcome,
            detail=ending.message,
            takes_away=lost is not None,
            node=node,
            exit_code=returncode,
            reason_code=ending.reason_code,
            message=ending.message if ending.reason_code else "",
            log_tail=log if ending.reason_code else "",
            **spent,
        )
        if released:
            session.refresh(run)
            known = evidence.finished.peak_memory_bytes if evidence.finished else 0
            note_actual(session, run, fence, memory_bytes=known)
            pause_if_runs_die_early(session)
    return ending.to if released else None


def _is_disk_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < _FULL_BYTES


def start_failure(error: OSError) -> AttemptFinished:
    """The cause of an attempt that could not be started."""
    code = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "start_failed"
    return AttemptFinished(outcome="failed", reason_code=code, message=f"training could not be started: {error}")


def finished_event(path: Path) -> AttemptFinished | None:
    """The event that closes an event file, if there is one."""
    for line in reversed(_tail_bytes(path).splitlines()):
        try:
            event = parse(line)
        except ValueError:
            continue
        return event if isinstance(event, AttemptFinished) else None
    return None


def error_message(run_dir: RunDir, attempt: int, node: int = 0) -> str:
    """What torchrun's error file says of why the trainer broke, in one sentence; empty without one."""
    try:
        content = json.loads(run_dir.error_file(attempt, node).read_text(encoding="utf-8"))
        message = content["message"]["message"] if isinstance(content["message"], dict) else content["message"]
        return f"the trainer broke: {str(message).strip()[:2000]}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # the trainer had no chance to write one


def killed_by(log: str) -> int | None:
    """The signal that ended a rank, from what torchrun wrote into the log."""
    found = _KILLED.search(log)
    return int(found[1]) if found else None


def _signal_sentence(number: int) -> str:
    try:
        name = f" ({signal.Signals(number).name})"
    except ValueError:
        name = ""
    hint = ": the machine probably ran out of memory" if number == signal.SIGKILL else ""
    return f"a training process was killed by signal {number}{name}{hint}"


def read_tail(path: Path) -> str:
    """The last lines of a log."""
    lines = _tail_bytes(path).decode("utf-8", errors="replace").replace("\x00", "").splitlines()
    return "\n".join(lines[-_TAIL_LINES:])


def _tail_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return b""
