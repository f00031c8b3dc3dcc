"""Looks at a run that streams share."""

import pytest

from rows import add_attempt, add_point, add_run
from server.db.session import Database
from server.db.tables import Run
from server.hints import Hints
from server.services import looks
from server.services.looks import Looks


@pytest.fixture
def hints() -> Hints:
    """Of a broker that is there."""
    hints = Hints(has_broker=True)
    hints.hear()
    return hints


@pytest.fixture
def run_id(database: Database) -> str:
    with database.write() as session:
        run = add_run(session)
        add_attempt(session, run, event_seq=3)
        for seq in (1, 2, 3):
            add_point(session, run, seq, float(seq))
        return run.id


def rename(database: Database, run_id: str) -> None:
    with database.write() as session:
        session.get_one(Run, run_id).phase = "another one"


def test_a_look_is_shared_until_a_hint_comes(database: Database, hints: Hints, run_id: str) -> None:
    shared = Looks(database, hints)
    first = shared.look(run_id)
    assert first is not None
    rename(database, run_id)
    hints.wake("another run")
    assert shared.look(run_id) is first
    hints.wake(run_id)
    second = shared.look(run_id)
    assert second is not None
    assert (first.status["phase"], second.status["phase"]) == ("", "another one")


def test_what_no_hint_tells_of_is_seen_too(
    database: Database, hints: Hints, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = Looks(database, hints)
    first = shared.look(run_id)
    monkeypatch.setattr(looks, "_FRESH_S", 0.0)
    assert shared.look(run_id) is not first


def test_without_a_broker_nothing_is_shared(database: Database, run_id: str) -> None:
    shared = Looks(database, Hints(has_broker=False))
    assert shared.look(run_id) is not shared.look(run_id)


def test_a_run_that_is_gone_is_none(database: Database, hints: Hints) -> None:
    assert Looks(database, hints).look("nothing") is None


def test_points_are_replayed_once_for_everybody_who_stands_at_the_same_place(
    database: Database, hints: Hints, run_id: str
) -> None:
    shared = Looks(database, hints)
    look = shared.look(run_id)
    assert look is not None
    found = shared.replay(look, (1, 1))
    assert found is not None
    assert [point.seq for _, point in found.points] == [2, 3]
    assert shared.replay(look, (1, 1)) is found
    assert shared.replay(look, (1, 2)) is not found
