"""What a watch rule would have done to runs of the past."""

from dataclasses import dataclass

from sqlmodel import Session, col, select

from server.db.tables import TERMINAL, Run, WatchRule
from server.notices.rules import applies, hit
from server.services.headline import headline

MAX_RUNS = 200
BEST = 5


@dataclass(frozen=True)
class Stopped:
    """A run that the rule would have acted on."""

    run: Run
    step: int
    value: float
    fvu: float | None
    """What it reached in the end."""
    saved_s: float
    """Device seconds that it took from there to its end."""
    is_best: bool
    """Whether it became one of the `BEST` of these runs, by FVU."""


@dataclass(frozen=True)
class Replay:
    """A dry run of a rule."""

    num_runs: int
    stopped: list[Stopped]

    @property
    def saved_s(self) -> float:
        return sum(one.saved_s for one in self.stopped)

    @property
    def num_best(self) -> int:
        return sum(one.is_best for one in self.stopped)


def replay(session: Session, rule: WatchRule) -> Replay:
    """Try a rule, which need not be stored, on the newest `MAX_RUNS` runs that are over and have its kind of name."""
    newest = select(Run).where(col(Run.state).in_(TERMINAL)).order_by(col(Run.created_at).desc())
    runs = [run for run in session.exec(newest.limit(10 * MAX_RUNS)) if applies(rule, run)][:MAX_RUNS]
    reached = {run.id: headline(run.latest)["fvu"] for run in runs}
    ranked = sorted((fvu, run_id) for run_id, fvu in reached.items() if fvu is not None)
    best = {run_id for _, run_id in ranked[:BEST]}
    stopped = []
    for run in runs:
        found = hit(session, rule, run)
        if found:
            left_s = max(0.0, (run.finished_at or found.ts) - found.ts) * run.num_processes * run.num_nodes
            stopped.append(Stopped(run, found.step, found.value, reached[run.id], left_s, run.id in best))
    return Replay(len(runs), stopped)
