"""What a rule found."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """`bad`: the coders will be of no use; `warn`: they could be better."""

    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a run, for a person.

    Args:
        code: stable, for programs.
        title: what was seen, with the numbers.
        cause: what it comes from most often, and what helps.
        fix: fields of the configuration (`sae.k`) and the values with which a clone should do better; None leaves a
            field empty. Nothing where no field helps.
    """

    code: str
    severity: Severity
    title: str
    cause: str
    fix: dict[str, Any] = field(default_factory=dict)
