"""Where runs come from, and which runs came of them."""

from collections.abc import Sequence
from typing import NamedTuple

from server.db.tables import Run


class Branch(NamedTuple):
    """Where a fork leaves the run `parent`, which it was forked from."""

    parent: str
    step: int


class Before(NamedTuple):
    """What was trained before a run's own step 0."""

    steps: int = 0
    tokens: int = 0


def branches(runs: Sequence[Run]) -> dict[str, Branch]:
    """The forks whose parents are among the runs, by id."""
    ids = {run.id for run in runs}
    return {run.id: Branch(run.forked_from, run.forked_step or 0) for run in runs if run.forked_from in ids}


def before(runs: Sequence[Run]) -> dict[str, Before]:
    """What every run adds to its steps and tokens to begin where it branches off from its parent, if that is there too.

    A fork that kept the optimizer's state counts on from its checkpoint; from the weights alone it counts from 0 again.
    """
    by_id = {run.id: run for run in runs}

    def of(run: Run) -> Before:
        parent = by_id.get(run.forked_from or "")
        if parent is None:
            return Before()
        inherited = of(parent)
        step = 0 if run.config.get("finetune_state") else run.forked_step or 0
        return Before(inherited.steps + step, inherited.tokens + step * parent.tokens_per_step)

    return {run.id: of(run) for run in runs}
