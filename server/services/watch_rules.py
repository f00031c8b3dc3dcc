"""Watch rules: made, listed, changed, deleted. What they do is in `server.notices`."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import delete
from sqlmodel import Session, col

from server.db.tables import WatchHit, WatchRule
from server.errors import ConflictError, InvalidError
from server.notices.message import watchable
from server.notices.rules import etag, rules
from server.services.changes import Change, require_current
from server.services.lookup import get_row
from server.services.text import unwanted_character

MAX_RULES = 50

Metric = Annotated[str, Field(max_length=64)]
Tokens = Annotated[int, Field(ge=0, le=10**15)]
Action = Literal["notify", "pause", "cancel"]
Pattern = Annotated[str, Field(min_length=1, max_length=200)]


class WatchRuleRequest(BaseModel):
    """`if METRIC is above (or below) VALUE from FROM_TOKENS on, ACTION`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    metric: Metric
    """Name of a metric; of one that every coder has, the first coder that meets the rule counts."""
    above: bool = True
    """Act above the value, or with false below it."""
    value: float
    from_tokens: Tokens = 0
    """Training tokens before which the rule does not look."""
    action: Action = "notify"
    """Tell the channels that want `watch`; pausing and cancelling save a checkpoint first."""
    runs: Pattern = "*"
    """Pattern of run names, with * and ?."""


class WatchRuleChange(Change):
    """What can be changed about a rule; what is left out stays."""

    metric: Metric | None = None
    above: bool | None = None
    value: float | None = None
    from_tokens: Tokens | None = None
    action: Action | None = None
    runs: Pattern | None = None


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


def get_rule(session: Session, rule_id: str) -> WatchRule:
    """Raises NotFoundError."""
    return get_row(session, WatchRule, rule_id, "watch rule")


def change_rule(session: Session, rule_id: str, change: WatchRuleChange, *, if_match: str | None = None) -> WatchRule:
    """Change a rule in place. It then is as a new one: what it has acted on it may act on again.

    Raises:
        NotFoundError: there is no such rule.
        NotCurrentError: `if_match` is not the rule's `etag` any more.
        InvalidError: the changed rule would make no sense.
    """
    rule = get_row(session, WatchRule, rule_id, "watch rule", locks=True)
    require_current(if_match, etag(rule), "rule")
    said = rule.model_dump(include=set(WatchRuleRequest.model_fields))
    wanted = WatchRuleRequest.model_validate(said | change.model_dump(exclude_none=True))
    if etag(make_rule(wanted)) != etag(rule):
        rule.sqlmodel_update(wanted.model_dump())
        session.add(rule)
        _forget_hits(session, rule_id)
    return rule


def delete_rule(session: Session, rule_id: str) -> None:
    """What it did stays in the history of the runs. Raises NotFoundError."""
    rule = get_rule(session, rule_id)
    _forget_hits(session, rule_id)
    session.delete(rule)


def _forget_hits(session: Session, rule_id: str) -> None:
    session.execute(delete(WatchHit).where(col(WatchHit.rule_id) == rule_id))
