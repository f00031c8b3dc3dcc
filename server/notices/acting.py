"""Has watch rules act on the runs that train."""

from typing import NamedTuple

from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from server.db.runs import record, snapshot
from server.db.session import Database
from server.db.tables import Run, RunEvent, RunState, WatchHit, WatchRule
from server.errors import ConflictError
from server.notices.rules import Hit, etag, hit, in_words, rules
from server.numbers import named_metric
from server.services import control
from server.settings import Settings

ACTIONS = {"notify": "nothing was done", "pause": "pausing it", "cancel": "cancelling it"}
"""What a rule can do, and how the history says it."""

_ACTOR = "watch rule"
_STOPPED = (RunState.STOPPING, RunState.PAUSED, RunState.CANCELLED)


def stopped_by(session: Session, run: Run) -> str:
    """What a rule saw that has stopped this run, in words; empty when no rule has, or it trains again."""
    if run.state not in _STOPPED:
        return ""
    asked = select(RunEvent).where(RunEvent.run_id == run.id, col(RunEvent.kind).in_(["watch", RunState.STOPPING]))
    newest = session.exec(asked.order_by(col(RunEvent.id).desc()).limit(2)).all()
    match newest:
        case [RunEvent(kind=RunState.STOPPING, actor=actor), RunEvent(kind="watch", detail=seen)] if actor == _ACTOR:
            return seen
    return ""


class _Due(NamedTuple):
    rule: WatchRule
    run_id: str
    hit: Hit


_Pair = tuple[str, str, str]


def _pair(rule: WatchRule, run: Run) -> _Pair:
    """A rule, what it says, and a run: a rule that was changed looks at every point anew."""
    return rule.id, etag(rule), run.id


class Watch:
    """Looks at what is new since its last look; one object per server."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._looked_at: dict[_Pair, int] = {}
        """The step up to which no point met the rule."""

    def work(self) -> int:
        """Returns how many runs were acted on."""
        with self._database.read() as session:
            watching = rules(session)
            if not watching:
                return 0
            training = session.exec(select(Run).where(Run.state == RunState.RUNNING)).all()
            of_them = col(WatchHit.run_id).in_([run.id for run in training])
            acted = set(session.exec(select(WatchHit.rule_id, WatchHit.run_id).where(of_them)))
            pairs = [
                (rule, run)
                for rule in watching
                for run in training
                if (rule.id, run.id) not in acted and self._looked_at.get(_pair(rule, run), -1) < run.step
            ]
            due = []
            for rule, run in pairs:
                # From the last step on: an evaluation of that step may have come later than its other numbers.
                found = hit(session, rule, run, after_step=self._looked_at.get(_pair(rule, run), 1) - 1)
                if found:
                    due.append(_Due(rule, run.id, found))
        # What is due stays unseen until it was acted on: the database may be in trouble in between.
        unseen = {(one.rule.id, one.run_id) for one in due}
        self._looked_at |= {_pair(rule, run): run.step for rule, run in pairs if (rule.id, run.id) not in unseen}
        there = {_pair(rule, run) for rule in watching for run in training}
        self._looked_at = {pair: step for pair, step in self._looked_at.items() if pair in there}
        return sum(self._act(one) for one in due)

    def _act(self, due: _Due) -> bool:
        rule, found = due.rule, due.hit
        value = named_metric(rule.metric, found.value)
        detail = f"{in_words(rule)}: {found.key} was {value} at step {found.step:,}; {ACTIONS[rule.action]}"
        try:
            with self._database.write() as session:
                snapshot(session, due.run_id)  # locks the row first, as every move does
                now = session.get(WatchRule, rule.id, with_for_update=True)
                if now is None or etag(now) != etag(rule):
                    return False  # deleted or changed meanwhile
                session.add(WatchHit(rule_id=rule.id, run_id=due.run_id, step=found.step, value=found.value))
                session.flush()
                record(session, due.run_id, actor=_ACTOR, kind="watch", reason_code=rule.metric, detail=detail)
                if rule.action == "pause":
                    control.pause_run(session, due.run_id, settings=self._settings, actor=_ACTOR)
                elif rule.action == "cancel":
                    control.cancel_run(session, due.run_id, settings=self._settings, actor=_ACTOR)
        except IntegrityError:  # another server was faster
            return False
        except ConflictError:  # the run has ended meanwhile
            return False
        return True
