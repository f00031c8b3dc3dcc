"""The checks of a run's health, in the order in which they are shown."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from server.diagnosis.evidence import Evidence
from server.diagnosis.finding import Finding
from server.diagnosis.latents import dead_latents, decoder_duplicates, density
from server.diagnosis.training import fvu_stuck, loss_spike, non_finite, throughput_fallen


class State(StrEnum):
    """`waiting`: there is nothing to look at yet."""

    WAITING = "waiting"
    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True)
class Check:
    """A rule, what it looks at in words, and the metric without which it cannot say anything."""

    code: str
    label: str
    metric: str
    rule: Callable[[Evidence], Finding | None]


@dataclass(frozen=True)
class Result:
    """What a check said."""

    check: Check
    state: State
    finding: Finding | None = None


CHECKS = (
    Check("non_finite", "The loss is finite", "fvu", non_finite),
    Check("fvu_stuck", "The FVU falls", "fvu", fvu_stuck),
    Check("loss_spike", "The FVU has no spikes", "fvu", loss_spike),
    Check("dead_latents", "Latents stay alive", "dead_frac", dead_latents),
    Check("density", "Latents fire neither all the time nor never", "eval_l0", density),
    Check("decoder_duplicates", "Latents differ from each other", "eval_duplicate_frac", decoder_duplicates),
    Check("throughput", "Steps keep their speed", "tokens_per_s", throughput_fallen),
)
SERIES = ("fvu", "dead_frac", "lr", "tokens_per_s")
"""Metrics whose course the rules look at; of the others the newest value is enough."""


def diagnose(evidence: Evidence) -> list[Result]:
    """All checks."""
    return [_look(check, evidence) for check in CHECKS]


def _look(check: Check, evidence: Evidence) -> Result:
    finding = check.rule(evidence)
    if finding is not None:
        return Result(check, State(finding.severity), finding)
    return Result(check, State.OK if evidence.has(check.metric) else State.WAITING)
