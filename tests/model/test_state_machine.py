"""The state machine, explored exhaustively: what must never happen does not, and every defence is needed."""

from collections import deque
from dataclasses import replace

import pytest
from run_model import FIRST, MAX_ATTEMPTS, Rules, Step, World, loosened, steps

from server.db.states import ACTIVE, TERMINAL, Intent, RunState
from worker.failures import BUDGET

SPENDING = ("conclude", "reap")


def explore(rules: Rules) -> tuple[int, str]:
    """Visit every reachable world, breadth first. Returns how many there are, and the first violation with the way
    to it, or an empty text.
    """
    came_from: dict[World, tuple[World | None, str]] = {FIRST: (None, "")}
    leads_to: dict[World, list[World]] = {}
    todo = deque([FIRST])
    while todo:
        world = todo.popleft()
        for step in steps(world, rules):
            if step.is_progress:
                leads_to.setdefault(step.world, []).append(world)
            if step.world not in came_from:
                came_from[step.world] = (world, step.label)
                todo.append(step.world)
            problem = violation(world, step)
            if problem:
                return len(came_from), f"{problem}: {way(came_from, world)}, {step.label}"
    stuck = first_stuck(came_from, leads_to)
    return len(came_from), f"never comes to rest: {way(came_from, stuck)}" if stuck else ""


def violation(before: World, step: Step) -> str:
    """What is wrong with a step, or an empty text."""
    after = step.world
    run, old = after.run, before.run
    if old.state in TERMINAL and run != old:
        return "a terminal state was overwritten"
    if after.is_cancelled and run.state == RunState.STARTING and old.state != RunState.STARTING:
        return "a cancelled run was started"
    if sum(1 for worker in after.workers if worker.trainer) > 1:
        return "two trainers at once"
    spent = (after.losses, after.failures) != (before.losses, before.failures)
    has_failed = step.label in SPENDING and (old.state != RunState.STOPPING or before.outcome == "failed")
    has_failed = has_failed and before.has_started
    if spent and not has_failed:
        return "something else than a failure spent the budget"
    has_spent = after.losses + after.failures > BUDGET - 1 or after.unstarted > BUDGET
    if run.state == RunState.FAILED and old.state in ACTIVE and not has_spent:
        return "a run failed although nothing did"
    held = [attempt for attempt in after.leases if attempt]
    if held != ([run.attempt] if run.state in ACTIVE else []):
        return "the leases are not those of the run's holder"
    if run.state in (RunState.QUEUED, RunState.RETRY_WAIT) and run.intent != Intent.RUN:
        return "a run that nobody wants waits for its turn"
    return ""


def first_stuck(came_from: dict[World, tuple[World | None, str]], leads_to: dict[World, list[World]]) -> World | None:
    """The first world from which nothing that happens by itself leads to rest."""
    resting = [world for world in came_from if is_at_rest(world)]
    reached = set(resting)
    while resting:
        for world in leads_to.get(resting.pop(), ()):
            if world not in reached:
                reached.add(world)
                resting.append(world)
    return next((world for world in came_from if world not in reached), None)


def is_at_rest(world: World) -> bool:
    """Ended or paused, with no process left; or where exploring ends."""
    if world.run.attempt == MAX_ATTEMPTS and world.run.state in (RunState.QUEUED, RunState.RETRY_WAIT):
        return True
    is_quiet = not any(worker.trainer or worker.supervisor or worker.placed for worker in world.workers)
    return is_quiet and world.run.state in (*TERMINAL, RunState.PAUSED)


def way(came_from: dict[World, tuple[World | None, str]], world: World) -> str:
    """The shortest way to a world."""
    labels: list[str] = []
    at: World | None = world
    while at is not None:
        at, label = came_from[at]
        labels.append(label)
    return ", ".join(reversed(labels[:-1]))


def test_nothing_that_must_not_happen_can_happen() -> None:
    count, problem = explore(Rules())
    assert problem == ""
    assert count > 10_000  # the model has not become trivial


NO_FENCE = loosened(lambda move: replace(move, is_fenced=False))
NO_GUARD = loosened(lambda move: replace(move, is_fenced=False, sources=tuple(RunState)))
ANY_INTENT = loosened(lambda move: replace(move, intents=tuple(Intent)))


MUTANTS = {
    "a holder needs no fence": (Rules(releases=NO_FENCE, reaper_raises_fence=False), "the leases are not"),
    "a release looks at nothing": (Rules(releases=NO_GUARD, reaper_raises_fence=False), "overwritten"),
    "the reaper ignores the intent": (Rules(releases=ANY_INTENT, reaper_sees_intent=False), "that nobody wants"),
    "a claim does not compare": (Rules(compares_and_sets=False), "overwritten"),
    "nobody sweeps": (Rules(sweeps=False), "never comes to rest"),
    "orphans are left alive": (Rules(kills_lower_fences=False), "two trainers at once"),
    "claims spend the budget": (Rules(claim_costs=1), "spent the budget"),
    "a pause is a loss": (Rules(stopping_is_no_loss=False), "spent the budget"),
    "a claim that came to nothing is a loss": (Rules(unstarted_is_no_loss=False), "spent the budget"),
    "a release keeps the devices": (Rules(frees_devices=False), "the leases are not"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_without_one_defence_it_happens(mutant: str) -> None:
    rules, expected = MUTANTS[mutant]
    _, problem = explore(rules)
    assert expected in problem
