"""Two sides by turns in one process: what drifts, drifts for both."""

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.sides import Measured, Side, Task
from benchmarks.timing import Spread, spread


class Outcome(NamedTuple):
    """Milliseconds per step over the windows of all rounds, and the peak in GiB."""

    ms: Spread
    peak_gib: float


def alternate(sides: Sequence[tuple[str, Side, Task]], rounds: int) -> list[Outcome]:
    """Run each side once per round, in order; prints every run as it ends."""
    runs: list[list[Measured]] = [[] for _ in sides]
    for number in range(1, rounds + 1):
        for own, (name, run, task) in zip(runs, sides, strict=True):
            own.append(run(task))
            peak = f"  peak {own[-1].peak_gib:.1f} GiB" if own[-1].peak_gib else ""
            print(f"  round {number}  {name}: {spread(own[-1].window_ms)} ms{peak}", flush=True)
    return [
        Outcome(spread([ms for run in own for ms in run.window_ms]), max(run.peak_gib for run in own)) for own in runs
    ]
