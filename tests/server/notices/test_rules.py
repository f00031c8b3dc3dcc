"""Watch rules act once, on the first point beyond their limit, and their dry run says the same of the past."""

import random
from typing import Any

import pytest
from sqlmodel import Session, select

from rows import add_attempt, add_point, add_run
from server.db.series import as_json
from server.db.session import Database
from server.db.tables import Intent, Run, RunEvent, RunState, WatchHit, WatchRule
from server.notices.acting import Watch
from server.notices.replay import replay
from server.notices.rules import hit
from server.services.watch_rules import WatchRuleChange, change_rule
from server.settings import Settings


def rule(**values: object) -> WatchRule:
    return WatchRule(**{"metric": "fvu", "above": True, "value": 0.4, "action": "notify"} | values)


def add_curve(session: Session, name: str, fvus: list[float], **values: object) -> Run:
    """A run with one point per step and 10 tokens in each."""
    run = add_run(session, name=name, tokens_per_step=10, total_steps=100, **values)
    add_attempt(session, run)
    for step, fvu in enumerate(fvus, 1):
        add_point(session, run, step, fvu)
    run.step, run.latest = len(fvus), {key: as_json(fvus[-1]) for key in ("fvu/layers.5", "eval_fvu/layers.5")}
    run.finished_at = float(len(fvus))
    return run


@pytest.mark.parametrize("above", [True, False])
def test_the_first_point_counts_that_is_late_enough(database: Database, above: bool) -> None:
    chance = random.Random(0)
    with database.write() as session:
        for number in range(12):
            fvus = [chance.choice([chance.random(), chance.random(), float("nan")]) for _ in range(30)]
            run = add_curve(session, f"run {number}", fvus)
            session.flush()
            watching = rule(above=above, value=chance.random(), from_tokens=chance.randint(0, 290))
            late = [(step, fvu) for step, fvu in enumerate(fvus, 1) if step * 10 >= watching.from_tokens]
            beyond = [s for s, fvu in late if (fvu > watching.value if above else fvu < watching.value)]
            found = hit(session, watching, run)
            assert (found and found.step) == (beyond[0] if beyond else None)


def test_a_run_is_acted_on_once_and_others_are_left_alone(database: Database, settings: Settings) -> None:
    with database.write() as session:
        session.add(rule(action="pause", runs="bad*", from_tokens=20))
        bad = add_curve(session, "bad one", [0.9, 0.3], state=RunState.RUNNING)
        good = add_curve(session, "good one", [0.9, 0.9], state=RunState.RUNNING)
    watch = Watch(database, settings)
    assert watch.work() == 0  # what it was before 20 tokens does not count
    with database.write() as session:
        row = session.get_one(Run, bad.id)
        add_point(session, row, 3, 0.5)
        row.step = 3
    assert watch.work() == 1
    assert watch.work() == Watch(database, settings).work() == 0
    with database.read() as session:
        (acted,) = session.exec(select(WatchHit))
        assert (acted.run_id, acted.step, acted.value) == (bad.id, 3, 0.5)
        (event,) = session.exec(select(RunEvent).where(RunEvent.kind == "watch"))
        assert event.detail == (
            "FVU (training batch) > 0.4 from 20 tokens: fvu/layers.5 was 0.5000 at step 3; pausing it"
        )
        assert session.get_one(Run, bad.id).intent == Intent.PAUSE
        assert session.get_one(Run, good.id).intent == Intent.RUN


def test_a_rule_that_was_changed_looks_at_everything_anew(database: Database, settings: Settings) -> None:
    with database.write() as session:
        watching = rule(value=0.8)
        session.add(watching)
        run = add_curve(session, "run", [0.9, 0.7, 0.6], state=RunState.RUNNING)
    watch = Watch(database, settings)
    assert watch.work() == 1
    with database.write() as session:
        change_rule(session, watching.id, WatchRuleChange(value=0.95, action="cancel"))
    assert watch.work() == 0
    with database.write() as session:
        change_rule(session, watching.id, WatchRuleChange(value=0.65))
    assert watch.work() == 1
    assert watch.work() == 0
    with database.read() as session:
        assert session.exec(select(WatchHit.step)).all() == [1]
        assert session.get_one(Run, run.id).intent == Intent.CANCEL


def test_a_rule_that_is_changed_while_it_is_met_does_what_it_says_now(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the points and the deed."""
    with database.write() as session:
        watching = rule(action="cancel")
        session.add(watching)
        run = add_curve(session, "run", [0.9], state=RunState.RUNNING)
    watch = Watch(database, settings)
    act = watch._act

    def change_first(due: Any) -> bool:
        with database.write() as session:
            change_rule(session, watching.id, WatchRuleChange(action="notify"))
        return act(due)

    monkeypatch.setattr(watch, "_act", change_first)
    assert watch.work() == 0
    monkeypatch.undo()
    assert watch.work() == 1
    with database.read() as session:
        assert session.get_one(Run, run.id).intent == Intent.RUN


def test_a_dry_run_says_what_would_have_been_saved_and_lost(database: Database) -> None:
    with database.write() as session:
        for number in range(8):
            fvus = [0.9, 0.5 if number % 2 else 0.3, *[0.01 * (number + 1)] * 8]
            add_curve(session, f"run {number}", fvus, state=RunState.COMPLETED, num_processes=2)
        add_curve(session, "other", [0.9] * 9, state=RunState.COMPLETED)
        add_curve(session, "run that trains", [0.9] * 9, state=RunState.RUNNING)
        session.flush()
        done = replay(session, rule(from_tokens=20, runs="run*"))
        assert session.exec(select(WatchRule)).all() == []
    assert done.num_runs == 8
    assert sorted((one.run.name, one.step) for one in done.stopped) == [(f"run {n}", 2) for n in (1, 3, 5, 7)]
    assert {one.run.name for one in done.stopped if one.is_best} == {"run 1", "run 3"}
    assert done.saved_s == pytest.approx(4 * 2 * (10 - 2))
