"""Results as a Markdown table: each row as soon as it is there, the whole at the end, also when that comes early."""

import datetime
import importlib.metadata
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import torch

from benchmarks.alternate import Outcome
from benchmarks.goals import Goal

COMPARED = [
    "workload",
    "mode",
    "sparsify ms",
    "ours ms",
    "speed-up",
    "must",
    "aim",
    "floor",
    "ours tok/s",
    "peak GiB",
    "of peak",
]


class Table:
    """Rows under `columns`, printed as they are added."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = list(columns)
        self._rows: list[list[str]] = []

    def add(self, *cells: object) -> None:
        row = [str(cell) for cell in cells]
        self._rows.append(row)
        print(_line(row), flush=True)

    def add_failure(self, *cells: str) -> None:
        """A row that says what could not be measured; the traceback is to be printed by the caller."""
        self.add(*cells, "failed", *[""] * (len(self._columns) - len(cells) - 1))

    def markdown(self) -> str:
        return "\n".join([_line(self._columns), _line(["---"] * len(self._columns)), *map(_line, self._rows)])


@contextmanager
def table(title: str, columns: Sequence[str]) -> Iterator[Table]:
    """Says where and when it is measured, and repeats the rows as one table at the end, an interruption included."""
    signal.signal(signal.SIGTERM, _leave)
    print(f"## {title}\n{setting()}\n", flush=True)
    rows = Table(columns)
    try:
        yield rows
    finally:
        print(f"\n{rows.markdown()}", flush=True)


def setting() -> str:
    """Device, date and versions, in one sentence."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    names = ["torch", "triton", "transformers", "eai-sparsify"]
    versions = ", ".join(f"{name} {version}" for name in names if (version := _version(name)))
    return f"{device}, {datetime.date.today().isoformat()}, {versions}."


def compared_row(
    workload: str, mode: str, theirs: Outcome, ours: Outcome, tokens_per_step: int, goal: Goal | None
) -> list[str]:
    """Cells under `COMPARED`."""
    share = f"{ours.peak_gib / theirs.peak_gib:.2f}" if theirs.peak_gib else ""
    return [
        workload,
        mode,
        str(theirs.ms),
        str(ours.ms),
        *judged(theirs.ms.median / ours.ms.median, goal),
        f"{tokens_per_step / ours.ms.median * 1e3:,.0f}",
        f"{theirs.peak_gib:.1f} → {ours.peak_gib:.1f}" if share else "",
        f"{share} (≤ {goal.memory:g})" if share and goal else share,
    ]


def judged(speed_up: float, goal: Goal | None) -> list[str]:
    """Speed-up, must, aim, floor; blank where nothing was aimed at."""
    if goal is None:
        return [f"{speed_up:.2f}×", "", "", ""]
    mark = "" if speed_up >= goal.must else " (missed)"
    floor = "" if goal.floor is None else f"{goal.floor:.3g}×"
    return [f"{speed_up:.2f}×{mark}", f"{goal.must:.3g}×", f"{goal.aim:.3g}×", floor]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
