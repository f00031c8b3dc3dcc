"""Watch rules: `if FVU > 0.4 at 20M tokens, stop`, on runs that train and on those of the past."""

import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from sqlmodel import Session, col, select

from server.db.tables import MetricChunk, MetricPoint, Run, WatchRule
from server.services import metrics
from server.services.changes import etag_of
from server.services.metrics import Series
from sparsify_core.metrics import METRICS, split_key

MAX_POINTS = 2000
"""To which sealed series are thinned: of longer ones a rule sees the extremes of buckets."""


class Hit(NamedTuple):
    """Where a series met a rule."""

    key: str
    step: int
    ts: float
    value: float


def hit(session: Session, rule: WatchRule, run: Run, *, after_step: int = 0) -> Hit | None:
    """The first point of the run, behind `after_step`, at which the rule acts: that of any coder."""
    if not run.tokens_per_step or not applies(rule, run):
        return None
    start = max(math.ceil(rule.from_tokens / run.tokens_per_step), after_step + 1)
    keys = [key for key in run.latest if split_key(key)[0] == rule.metric]
    if not keys or run.step < start:
        return None
    hits = [_hot_hit(session, rule, run.id, keys, start)]
    if _is_sealed(session, run.id, start):
        hits += _hits(metrics.series(session, run.id, keys, start=start, max_points=MAX_POINTS), rule, start)
    return min((one for one in hits if one), key=lambda one: one.step, default=None)


def _hot_hit(session: Session, rule: WatchRule, run_id: str, keys: Sequence[str], start: int) -> Hit | None:
    """Of the points that lie in rows, where the database does the looking: a rule is tried every few seconds."""
    value = col(MetricPoint.value)
    beyond = (value > rule.value) if rule.above else (value < rule.value)
    of_run = (MetricPoint.run_id == run_id, col(MetricPoint.key).in_(keys), MetricPoint.step >= start)
    points = select(MetricPoint).where(*of_run, beyond).order_by(col(MetricPoint.step))
    first = session.exec(points.limit(1)).first()
    return None if first is None or first.value is None else Hit(first.key, first.step, first.ts, first.value)


def _is_sealed(session: Session, run_id: str, start: int) -> bool:
    """Whether points of steps from `start` on lie in chunks."""
    chunk = select(MetricChunk.key).where(MetricChunk.run_id == run_id, MetricChunk.last_step >= start)
    return session.exec(chunk.limit(1)).first() is not None


def applies(rule: WatchRule, run: Run) -> bool:
    """Whether the run's name is like the rule's pattern."""
    return fnmatchcase(run.name, rule.runs)


def _hits(found: dict[str, Series], rule: WatchRule, start: int) -> Iterable[Hit]:
    """Per series the first bucket with a value beyond the limit. One that began before `start` does not count."""
    for key, one in found.items():
        extremes = (one["max"] if rule.above else one["min"]) or one["values"]
        for step, ts, value in zip(one["steps"], one["ts"], extremes, strict=True):
            is_within = step - step % one["width"] >= start
            if is_within and isinstance(value, float) and (value > rule.value if rule.above else value < rule.value):
                yield Hit(key, step, ts, value)
                break


def in_words(rule: WatchRule) -> str:
    """`FVU (training batch) > 0.4 from 20,000,000 tokens`."""
    known = METRICS.get(rule.metric)
    words = f"{known.label if known else rule.metric} {'>' if rule.above else '<'} {rule.value:g}"
    return f"{words} from {rule.from_tokens:,} tokens" if rule.from_tokens else words


def etag(rule: WatchRule) -> str:
    """Names what a rule says: it changes when the rule does."""
    return etag_of([rule.metric, rule.above, rule.value, rule.from_tokens, rule.action, rule.runs])


def rules(session: Session) -> list[WatchRule]:
    """All rules, the oldest first."""
    return list(session.exec(select(WatchRule).order_by(WatchRule.created_at, WatchRule.id)))  # type: ignore[arg-type]
