"""Where a step's time goes, as bars and a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.db.tables import StepTiming
from server.numbers import count, milliseconds, percent
from sparsify_core.parts import PARTS, WARM_UP_STEPS

FIRST_STEP = WARM_UP_STEPS + 1
"""The step that an attempt from the beginning measures first."""

NUM_RECENT = 6
_SMALLEST = 0.0005
"""Shares below it are left out: nothing of them could be seen."""


@dataclass(frozen=True)
class Segment:
    """A part of a bar; x and width in percent of the drawing."""

    part: str
    x: float
    width: float
    title: str


@dataclass(frozen=True)
class TimeBar:
    """One step, cut into its parts. `floor_x` is where its floor ends, in percent; None: it has none."""

    label: str
    total: str
    segments: list[Segment]
    floor_x: float | None
    is_median: bool = False


@dataclass(frozen=True)
class PartRow:
    """A line of the table."""

    part: str
    label: str
    help: str
    ms: str
    share: str
    floor: str


@dataclass(frozen=True)
class Waterfall:
    """The median step in full, and the newest ones beside it.

    `floor` and `floor_share` (of the step's time) are empty where there is no floor.
    """

    bars: list[TimeBar]
    rows: list[PartRow]
    total: str
    largest: PartRow
    num_measured: int
    floor: str = ""
    floor_share: str = ""


def waterfall(timings: Sequence[StepTiming]) -> Waterfall | None:
    """Of a run's newest measurements, oldest first; None without any.

    The median is a step that was really measured, the middle one by its total: its parts add up. Of an even number it
    leaves out the oldest, so that there is a middle one.
    """
    if not timings:
        return None
    odd = timings[1 - len(timings) % 2 :]
    median = sorted(odd, key=lambda timing: timing.total_ms)[len(odd) // 2]
    recent = list(timings)[: -NUM_RECENT - 1 : -1]
    scale = max([*(timing.total_ms for timing in recent), median.total_ms, _floor_of(median)]) or 1.0
    bars = [_bar(timing, f"Step {count(timing.step)}", scale) for timing in recent]
    if len(timings) > 1:
        bars.insert(0, _bar(median, "Median", scale, is_median=True))
    rows = [_row(median, part) for part in _parts(median)]
    floor = _floor_of(median)
    return Waterfall(
        bars=bars,
        rows=rows,
        total=milliseconds(median.total_ms),
        largest=_row(median, max(median.parts_ms, key=lambda part: median.parts_ms[part])),
        num_measured=len(timings),
        floor=milliseconds(floor) if floor else "",
        floor_share=_share(floor, median.total_ms) if floor else "",
    )


def _parts(timing: StepTiming) -> list[str]:
    """In the order of a step; parts of a newer trainer last."""
    found = [part for part, ms in timing.parts_ms.items() if ms >= _SMALLEST * timing.total_ms]
    order = [str(part) for part in PARTS]
    return sorted(found, key=lambda part: order.index(part) if part in order else len(order))


def _bar(timing: StepTiming, label: str, scale: float, *, is_median: bool = False) -> TimeBar:
    segments = []
    x = 0.0
    for part in _parts(timing):
        row = _row(timing, part)
        width = 100 * timing.parts_ms[part] / scale
        segments.append(Segment(part, x, width, f"{row.label}: {row.ms} ms, {row.share}"))
        x += width
    floor = _floor_of(timing)
    return TimeBar(label, milliseconds(timing.total_ms), segments, 100 * floor / scale if floor else None, is_median)


def _row(timing: StepTiming, part: str) -> PartRow:
    info = {str(name): known for name, known in PARTS.items()}.get(part)
    ms, floor = timing.parts_ms[part], (timing.floor_ms or {}).get(part)
    return PartRow(
        part=part,
        label=info.label if info else part,
        help=info.help if info else "",
        ms=milliseconds(ms),
        share=_share(ms, timing.total_ms),
        floor="" if floor is None else milliseconds(floor),
    )


def _floor_of(timing: StepTiming) -> float:
    return sum((timing.floor_ms or {}).values())


def _share(ms: float, total_ms: float) -> str:
    return percent(ms / total_ms if total_ms else 0.0)
