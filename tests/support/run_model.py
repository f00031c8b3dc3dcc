"""A run, two workers on one host, a broker that loses and doubles, and everything that can happen to them.

The guards are those of the server: `server.db.runs.moves` says which moves a run can make, `worker.ending.judge` what
becomes of an attempt that has ended. What is modelled here is the world around them. `Rules` are the defences; a
mutant lacks one.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from server.db.runs.moves import (
    BACKOFF_OVER,
    CANCEL,
    CLAIM,
    DRAIN,
    FIRST_STEP,
    PAUSE,
    RELEASES,
    REQUEUE,
    RESUME,
    Move,
    Snapshot,
)
from server.db.states import ACTIVE, Intent, RunState
from sparsify_core.events import AttemptFinished
from worker.ending import Ending, Evidence, judge
from worker.failures import BUDGET

MAX_ATTEMPTS = 3
"""Where exploring ends. The budgets are all but spent at the start, so two losses are within reach."""


class Worker(NamedTuple):
    """A worker, and the processes of the run that it has started. Processes are named by their fence; 0: none."""

    seen: tuple[int, ...] = ()
    """Fence and attempt of the queued run that it is about to claim; empty: it claims nothing."""
    placed: int = 0
    """The attempt that was placed here, whose supervisor it is about to start."""
    supervisor: int = 0
    is_frozen: bool = False
    trainer: int = 0
    is_asked: bool = False
    """Whether the supervisor has asked its trainer to stop."""
    has_started: bool = False
    """Whether the supervisor has started its trainer."""


class World(NamedTuple):
    """One state of everything."""

    run: Snapshot
    losses: int
    failures: int = 0
    unstarted: int = 0
    """Attempts that ended before they had a supervisor."""
    has_started: bool = False
    """Whether the newest attempt ever had one."""
    has_message: bool = True
    outcome: str = ""
    """How the newest attempt's trainer ended, as its event file says."""
    workers: tuple[Worker, Worker] = (Worker(), Worker())
    leases: tuple[int, int] = (0, 0)
    """The attempt that leases the one device of each worker."""
    is_cancelled: bool = False
    """Whether somebody was told that the run is cancelled or will be."""


@dataclass(frozen=True)
class Rules:
    """The defences of the real code."""

    claim: Move = CLAIM
    releases: tuple[tuple[RunState, Move], ...] = tuple(RELEASES.items())
    compares_and_sets: bool = True
    sweeps: bool = True
    kills_lower_fences: bool = True
    reaper_raises_fence: bool = True
    reaper_sees_intent: bool = True
    stopping_is_no_loss: bool = True
    unstarted_is_no_loss: bool = True
    frees_devices: bool = True
    claim_costs: int = 0


class Step(NamedTuple):
    """Something that happens. `is_progress`: it will happen by itself, sooner or later."""

    label: str
    world: World
    is_progress: bool


FIRST = World(Snapshot(RunState.QUEUED, Intent.RUN, fence=0), losses=BUDGET - 1, unstarted=BUDGET - 1)


def steps(world: World, rules: Rules) -> Iterator[Step]:
    """Everything that can happen next. The two workers are alike, so worlds that differ in their order are one."""
    for step in _unordered_steps(world, rules):
        yield step._replace(world=_ordered(step.world))


def _unordered_steps(world: World, rules: Rules) -> Iterator[Step]:
    yield from _user(world)
    yield from _broker_and_clock(world, rules)
    for number in (0, 1):
        yield from _worker(world, rules, number)
        yield from _supervisor(world, rules, number)
        yield from _trainer(world, number)
        yield from _faults(world, number)


def _ordered(world: World) -> World:
    pairs = [(lease, _tidy(worker)) for lease, worker in zip(world.leases, world.workers, strict=True)]
    if pairs[0] < pairs[1]:
        pairs.reverse()
    return world._replace(leases=(pairs[0][0], pairs[1][0]), workers=(pairs[0][1], pairs[1][1]))


def _tidy(worker: Worker) -> Worker:
    """Without what nobody remembers once the supervisor is gone."""
    return worker if worker.supervisor else Worker(seen=worker.seen, placed=worker.placed, trainer=worker.trainer)


def _user(world: World) -> Iterator[Step]:
    for label, moves in (("cancel", CANCEL), ("pause", PAUSE), ("resume", RESUME), ("requeue", REQUEUE)):
        move = next((move for move in moves if move.allows(world.run)), None)
        if move is None:
            continue
        after = world._replace(run=move.after(world.run))
        if label == "cancel":
            after = after._replace(is_cancelled=True)
        if after.run.state == RunState.QUEUED:
            after = after._replace(has_message=True)
        yield Step(label, after, False)


def _broker_and_clock(world: World, rules: Rules) -> Iterator[Step]:
    if world.has_message:
        yield Step("lose the message", world._replace(has_message=False), False)
    if BACKOFF_OVER.allows(world.run):
        yield Step("backoff over", world._replace(run=BACKOFF_OVER.after(world.run)), True)
    if world.run.state in ACTIVE and not _is_served(world):
        intent = world.run.intent if rules.reaper_sees_intent else Intent.RUN
        after = _release(world, rules, world.run.fence, returncode=None, intent=intent, takes_away=True)
        if after is not None:
            yield Step("reap", after, True)
    if rules.kills_lower_fences:
        after = _kill(world, world.run.fence if world.run.state in ACTIVE else world.run.fence + 1)
        if after != world:
            yield Step("kill orphans", after, True)


def _worker(world: World, rules: Rules, number: int) -> Iterator[Step]:
    worker = world.workers[number]
    if worker.seen:
        yield Step("claim", _claim(world, rules, number), True)
        return
    if worker.placed:
        yield Step("start supervisor", _start_supervisor(world, number), True)
        return
    if not rules.claim.allows(world.run):
        return
    seen = (0, 0) if rules.compares_and_sets else (world.run.fence, world.run.attempt)
    looking = _with(world, number, seen=seen)
    if world.has_message:
        yield Step("wake", looking._replace(has_message=False), True)
        yield Step("wake, doubled", looking, True)
    if rules.sweeps:
        yield Step("sweep", looking, True)


def _claim(world: World, rules: Rules, number: int) -> World:
    seen = world.workers[number].seen
    world = _with(world, number, seen=())
    run = world.run if rules.compares_and_sets else Snapshot(RunState.QUEUED, Intent.RUN, *seen)
    worker = world.workers[number]
    is_busy = run.attempt == MAX_ATTEMPTS or worker.supervisor or worker.placed or world.leases[number]
    if not rules.claim.allows(run) or is_busy:
        return world
    after = rules.claim.after(run)
    leases = (after.attempt, world.leases[1]) if number == 0 else (world.leases[0], after.attempt)
    losses = min(BUDGET + 1, world.losses + rules.claim_costs)
    world = world._replace(run=after, leases=leases, outcome="", losses=losses, has_started=False)
    return _with(world, number, placed=after.attempt)


def _start_supervisor(world: World, number: int) -> World:
    """As `worker.starter`: what is not held any more is left alone."""
    attempt = world.workers[number].placed
    world = _with(world, number, placed=0)
    if world.run.fence != attempt or world.run.state not in ACTIVE:
        return world
    world = world._replace(has_started=True)
    return _with(world, number, supervisor=attempt, is_asked=False, has_started=False)


def _supervisor(world: World, rules: Rules, number: int) -> Iterator[Step]:
    worker = world.workers[number]
    fence = worker.supervisor
    if not fence or worker.is_frozen:
        return
    is_fenced_out = world.run.fence != fence or world.run.state not in ACTIVE
    if is_fenced_out and all(move.is_fenced for _, move in rules.releases):
        yield Step("give up", _with(world, number, supervisor=0, trainer=0), True)
        return
    if not worker.has_started:
        world = _kill(world, fence) if rules.kills_lower_fences else world
        yield Step("start", _with(world, number, trainer=fence, has_started=True), True)
        return
    if FIRST_STEP.allows(world.run, fence) and worker.trainer:
        yield Step("first step", world._replace(run=FIRST_STEP.after(world.run)), True)
    if DRAIN.allows(world.run, fence):
        yield Step("drain", world._replace(run=DRAIN.after(world.run)), False)
    if world.run.state == RunState.STOPPING and not worker.is_asked:
        yield Step("ask to stop", _with(world, number, is_asked=True), True)
    if not worker.trainer:
        for returncode in (0,) if world.outcome else (1, -9):
            after = _release(world, rules, fence, returncode=returncode, intent=world.run.intent)
            yield Step("conclude", _with(after or world, number, supervisor=0), True)


def _trainer(world: World, number: int) -> Iterator[Step]:
    worker = world.workers[number]
    if not worker.trainer:
        return
    gone = _with(world, number, trainer=0)
    is_newest = worker.trainer == world.run.attempt
    for outcome in ("completed", "stopped") if worker.is_asked else ("completed",):
        after = gone._replace(outcome=outcome) if is_newest else gone
        yield Step(f"trainer has {outcome}", after, True)
    yield Step("trainer fails", gone._replace(outcome="failed") if is_newest else gone, False)
    yield Step("trainer is killed", gone, False)


def _faults(world: World, number: int) -> Iterator[Step]:
    worker = world.workers[number]
    if worker.seen or worker.placed:
        yield Step("kill worker", _with(world, number, seen=(), placed=0), False)
    if not worker.supervisor:
        return
    dead = _with(world, number, supervisor=0, is_frozen=False)
    yield Step("kill supervisor", _with(dead, number, trainer=0), False)
    if worker.trainer:
        yield Step("kill supervisor, leaving an orphan", dead, False)
    yield Step("freeze or thaw", _with(world, number, is_frozen=not worker.is_frozen), worker.is_frozen)


def _release(
    world: World, rules: Rules, fence: int, *, returncode: int | None, intent: Intent, takes_away: bool = False
) -> World | None:
    """`worker.ending.conclude`; None when the attempt does not hold the run any more."""
    ending = _ending(world, rules, returncode, intent)
    move = dict(rules.releases)[ending.to]
    if not move.allows(world.run, fence):
        return None
    after = world._replace(run=move.after(world.run, takes_away=takes_away and rules.reaper_raises_fence))
    if ending.spends:
        spent = {ending.spends: min(BUDGET + 1, getattr(world, ending.spends) + 1)}
        after = after._replace(**spent)
    if ending.reason_code == "not_started":
        after = after._replace(unstarted=world.unstarted + 1)
    if rules.frees_devices:
        after = after._replace(leases=tuple(0 if held == fence else held for held in world.leases))
    return after


def _ending(world: World, rules: Rules, returncode: int | None, intent: Intent) -> Ending:
    finished = None
    if world.outcome:
        code = "model_error" if world.outcome == "failed" else ""
        finished = _FINISHED[world.outcome, code]
    evidence = Evidence(
        finished,
        has_checkpoint=True,
        returncode=returncode,
        is_stopping=rules.stopping_is_no_loss and world.run.state == RunState.STOPPING,
        has_started=world.has_started or not rules.unstarted_is_no_loss,
    )
    spent = {"failures": world.failures, "losses": world.losses, "not_started": world.unstarted}
    return judge(evidence, intent=intent, spent=spent)


_FINISHED = {
    (outcome, code): AttemptFinished(outcome=outcome, reason_code=code)
    for outcome, code in (("completed", ""), ("stopped", ""), ("failed", "model_error"))
}


def _is_served(world: World) -> bool:
    """Whether somebody renews the lease, or is about to."""
    return any(world.run.fence in (w.placed, w.supervisor) and not w.is_frozen for w in world.workers)


def _kill(world: World, below: int) -> World:
    """Kill all processes with a lower fence; frozen ones too."""
    killed = [
        worker._replace(
            supervisor=0 if worker.supervisor < below else worker.supervisor,
            is_frozen=worker.is_frozen and worker.supervisor >= below,
            trainer=0 if worker.trainer < below else worker.trainer,
        )
        for worker in world.workers
    ]
    return world._replace(workers=(killed[0], killed[1]))


def _with(world: World, number: int, **changes: object) -> World:
    workers = list(world.workers)
    workers[number] = workers[number]._replace(**changes)
    return world._replace(workers=(workers[0], workers[1]))


def loosened(change: Callable[[Move], Move]) -> tuple[tuple[RunState, Move], ...]:
    """The releases, each made laxer by `change`."""
    return tuple((state, change(move)) for state, move in RELEASES.items())
