"""Watch rules: made, listed, deleted. What they do is in `server.notices`."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import delete
from sqlmodel import Session

from server.db.tables import WatchHit, WatchRule
from server.errors import ConflictError, InvalidError
from server.notices.message import watchable
from server.notices.rules import rules
from server.services.lookup import get_row
from server.services.text import unwanted_character

MAX_RULES = 50


class WatchRuleRequest(BaseModel):
    """`if METRIC is above (or below) VALUE from FROM_TOKENS on, ACTION`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    metric: Annotated[str, Field(max_length=64)]
    """Name of a metric; of one that every coder has, the first coder that meets the rule counts."""
    above: bool = True
    """Act above the value, or with false below it."""
    value: float
    from_tokens: Annotated[int, Field(ge=0, le=10**15)] = 0
    """Training tokens before which the rule does not look."""
    action: Literal["notify", "pause", "cancel"] = "notify"
    """Tell the channels that want `watch`; pausing and cancelling save a checkpoint first."""
    runs: Annotated[str, Field(min_length=1, max_length=200)] = "*"
    """Pattern of run names, with * and ?."""


def make_rule(wanted: WatchRuleRequest) -> WatchRule:
    """The rule, not stored yet. Raises InvalidError."""
    if wanted.metric not in watchable():
        known = ", ".join(watchable())
        raise InvalidError.field(("metric",), f"{wanted.metric} is none of {known}.", "choice")
    if not math.isfinite(wanted.value):
        raise InvalidError.field(("value",), "The value must be a finite number.", "number")
    if unwanted_character(wanted.runs):
        raise InvalidError.field(("runs",), "A pattern has no invisible characters.", "pattern")
    return WatchRule(**wanted.model_dump())


def create_rule(session: Session, wanted: WatchRuleRequest) -> WatchRule:
    """Raises InvalidError; ConflictError when there are too many."""
    rule = make_rule(wanted)
    if len(rules(session)) >= MAX_RULES:
        raise ConflictError(f"There are {MAX_RULES} watch rules, and no room for more: delete one first.")
    session.add(rule)
    return rule


def delete_rule(session: Session, rule_id: str) -> None:
    """What it did stays in the history of the runs. Raises NotFoundError."""
    rule = get_row(session, WatchRule, rule_id, "watch rule")
    delete_hits = delete(WatchHit).where(WatchHit.rule_id == rule_id)  # type: ignore[arg-type]
    session.execute(delete_hits)
    session.delete(rule)
