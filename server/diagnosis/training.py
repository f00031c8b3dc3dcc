"""Rules about the course of training: the loss and the speed."""

import math
from typing import Any

from server.diagnosis.cures import calmer, outliers
from server.diagnosis.evidence import LOST_FVU, WARM_STEPS, Evidence, Line, middle, named
from server.diagnosis.finding import Finding, Severity
from server.numbers import metric

MIN_POINTS = 20
"""Fewer points have no course yet."""

STUCK_FVU = 0.6
"""Published coders have an FVU of 0.02 to 0.3 on residual streams, and up to 0.56 as transcoders of MLPs."""
WORSE_FVU = 1.5
"""Answering with the mean has 1: this far above it nothing comes back."""
GOOD_FVU = 0.3
"""Here a coder may stand still from its first step on."""
LEAST_GAIN = 0.02
"""A learning coder lowers its FVU by far more than this share over the second half of its steps until it is good."""

SPIKE_FACTOR = 2.0
SPIKE_FVU = 0.1
"""A spike is that many times the FVU before it, and at least that much above it: noise between batches is below."""
SPIKE_WINDOW = 10

SLOW_FACTOR = 0.6
"""Speed varies by a tenth or two with the text and with neighbours, not by more."""


def non_finite(evidence: Evidence) -> Finding | None:
    """A loss that became NaN or infinite: nothing learned since is worth anything."""
    broken = [coder for coder, line in evidence.of("fvu").items() if not all(map(math.isfinite, line.values))]
    if evidence.reason_code != "non_finite_loss" and not broken:
        return None
    return Finding(
        "non_finite",
        Severity.BAD,
        "The loss became NaN or infinite",
        "Steps too large for these activations blow the weights up" + outliers(evidence) + ".",
        calmer(evidence),
    )


def loss_spike(evidence: Evidence) -> Finding | None:
    """The FVU jumped in the second half of the run; early jumps belong to the warm-up."""
    found = {coder: spike for coder, line in evidence.of("fvu").items() if (spike := _spike(line)) is not None}
    if not found:
        return None
    step, before, at = max(found.values(), key=lambda spike: spike[2] / spike[1])
    which = named(list(found), len(evidence.of("fvu")))
    return Finding(
        "loss_spike",
        Severity.WARN,
        f"The FVU{which} jumped from {metric(before, 'ratio')} to {metric(at, 'ratio')} at step {step:,}",
        "Single batches with outliers, or a learning rate at the edge of what is stable" + outliers(evidence) + ".",
        calmer(evidence),
    )


def fvu_stuck(evidence: Evidence) -> Finding | None:
    """The FVU is high and has stopped falling, or was never lower than at the start, or is beyond all hope."""
    if evidence.step < 2 * evidence.warm_step:
        return None
    stuck = {
        coder: found for coder, line in evidence.of("fvu").items() if (found := _stuck(evidence, line)) is not None
    }
    if not stuck:
        return None
    worst = max(now for now, _ in stuck.values())
    is_lost = worst > LOST_FVU or any(is_unmoved for _, is_unmoved in stuck.values())
    which = named(list(stuck), len(evidence.of("fvu")))
    cause, fix = _why_stuck(evidence, is_lost=is_lost)
    return Finding(
        "fvu_stuck",
        Severity.BAD if is_lost else Severity.WARN,
        f"The FVU{which} is stuck at {metric(worst, 'ratio')}",
        cause,
        fix,
    )


def throughput_fallen(evidence: Evidence) -> Finding | None:
    """Steps take much longer than they did. Counted from the times of the points, which say it of every step: the
    charted rate is a mean over some seconds.
    """
    line = evidence.of("tokens_per_s").get("")
    if line is None or len(line.steps) < 2 * MIN_POINTS:
        return None
    rates = [
        (line.steps[i] - line.steps[i - 1]) / (line.ts[i] - line.ts[i - 1])
        for i in range(1, len(line.steps))
        if line.steps[i - 1] >= WARM_STEPS and line.ts[i] > line.ts[i - 1] and line.steps[i] > line.steps[i - 1]
    ]
    num_recent = max(5, len(rates) // 10)
    if len(rates) < 3 * num_recent:
        return None
    now, before = middle(rates[-num_recent:]), middle(rates[:-num_recent])
    if now > SLOW_FACTOR * before:
        return None
    return Finding(
        "throughput_fallen",
        Severity.WARN,
        f"Steps take {before / now:.1f} times as long as before",
        "Another process on the same device, a GPU that throttles because it is hot, a full disk or slow storage. The "
        "worker's page shows which.",
    )


def _stuck(evidence: Evidence, line: Line) -> tuple[float, bool] | None:
    """`(FVU now, whether it never fell)` of a coder that does not get on."""
    first, before, late = line.part(0, 0.1), line.part(0.4, 0.6), line.part(0.85, 1)
    if len(line.steps) < MIN_POINTS or not (first and before and late):
        return None
    now = middle(late)
    is_unmoved = now > GOOD_FVU and now > (1 - LEAST_GAIN) * middle(first) and not evidence.option("finetune")
    has_stopped = now > STUCK_FVU and now > (1 - LEAST_GAIN) * middle(before)
    return (now, is_unmoved) if is_unmoved or has_stopped or now > WORSE_FVU else None


def _spike(line: Line) -> tuple[int, float, float] | None:
    """`(step, FVU before, FVU at it)` of the largest jump."""
    values = zip(line.steps, line.highest or line.values, strict=True)
    points = [(step, value) for step, value in values if math.isfinite(value)]
    first = max(SPIKE_WINDOW, len(points) // 2)
    best: tuple[int, float, float] | None = None
    for i in range(first, len(points)):
        step, at = points[i]
        before = middle([value for _, value in points[i - SPIKE_WINDOW : i]])
        is_spike = step >= WARM_STEPS and at > SPIKE_FACTOR * before and at - before > SPIKE_FVU
        if is_spike and (best is None or at / before > best[2] / best[1]):
            best = (step, before, at)
    return best


def _why_stuck(evidence: Evidence, *, is_lost: bool) -> tuple[str, dict[str, Any]]:
    if is_lost and evidence.option("lr") is not None:
        return (
            f"The learning rate {evidence.option('lr'):g} was given by hand: far too high it scatters the latents, far "
            "too low it never moves them. Left empty it follows from the number of latents.",
            {"lr": None},
        )
    if is_lost:
        return ("Steps too large scatter the latents" + outliers(evidence) + ".", calmer(evidence))
    k = int(evidence.option("sae.k"))
    return (
        f"{k} active latents per token may be too few for this hookpoint; a larger k lowers the FVU at once.",
        {"sae.k": 2 * k},
    )
