"""What the successor of a run starts with."""

import os
import threading

import pytest
from sqlalchemy import text

from rows import add_checkpoint, add_run, claim_by
from server.db.session import Database
from server.db.tables import AttemptNode, Run
from server.settings import Settings
from services import wait_until
from sparsify_core import linking
from sparsify_core.manifest import delete_checkpoint, verify_checkpoint
from sparsify_core.rundir import RunDir
from worker.inherit import ancestors_of, inherit_checkpoints
from worker.supervisor import Supervisor


@pytest.fixture
def database(sqlite_settings: Settings) -> Database:
    return Database(sqlite_settings)


@pytest.fixture
def lineage(database: Database, sqlite_settings: Settings) -> list[Run]:
    """A run with three checkpoints, its successor, which never got as far as saving, and the successor of that one."""
    with database.write() as session:
        first = add_run(session)
        for step in (10, 20, 30):
            add_checkpoint(session, sqlite_settings, first, step)
        second = add_run(session, retry_of=first.id)
        return [first, second, add_run(session, retry_of=second.id)]


def no_links(*_: object) -> None:
    raise OSError("this file system has no links")


def test_the_newest_two_checkpoints_are_linked_and_intact(
    database: Database, sqlite_settings: Settings, lineage: list[Run]
) -> None:
    first, second, third = (sqlite_settings.run_dir(run.id) for run in lineage)
    assert ancestors_of(database, lineage[2]) == [lineage[1].id, lineage[0].id]
    assert inherit_checkpoints([second, first], third, meanwhile=lambda: None) == [30, 20]
    assert [checkpoint.step for checkpoint in third.published()] == [20, 30]
    for checkpoint in third.published():
        verify_checkpoint(checkpoint)
    mine, theirs = (run_dir.checkpoint(30).coder("layers.5").weights.stat() for run_dir in (third, first))
    assert mine.st_ino == theirs.st_ino
    delete_checkpoint(third.checkpoint(30))
    verify_checkpoint(first.checkpoint(30))
    assert inherit_checkpoints([second, first], third, meanwhile=lambda: None) == []  # it has one of its own
    assert ancestors_of(database, lineage[0]) == []


def test_a_copy_that_is_ended_publishes_nothing_and_is_cleared_away(
    lineage: list[Run], sqlite_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(linking, "_BLOCK_BYTES", 50)
    calls = 0

    def stop() -> None:
        nonlocal calls
        calls += 1
        if calls > 8:
            raise InterruptedError

    first, own = sqlite_settings.run_dir(lineage[0].id), sqlite_settings.run_dir(lineage[2].id)
    with pytest.raises(InterruptedError):
        inherit_checkpoints([first], own, meanwhile=stop)
    assert own.published() == []
    assert len(own.unpublished()) == 1


def test_the_lease_is_held_while_a_successor_is_prepared(
    database: Database, lineage: list[Run], sqlite_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(linking, "_BLOCK_BYTES", 50)
    run = lineage[2]
    own = sqlite_settings.run_dir(run.id)
    own.staging(30).root.mkdir(parents=True)  # a killed attempt has left them
    own.staging(40).root.mkdir()
    with database.write() as session:
        assert claim_by(session, run.id) == 1
    supervisor = Supervisor(sqlite_settings.model_copy(update={"lease_s": 0.01}), run.id, 1)
    supervisor._prepare(run)
    assert_inherited(own)
    assert own.unpublished() == []
    with database.read() as session:
        assert session.get_one(AttemptNode, (run.id, 1, 0)).heartbeat > 2


def test_a_database_that_is_away_for_a_moment_does_not_end_the_preparation(
    database: Database, lineage: list[Run], sqlite_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    run = lineage[2]
    with database.write() as session:
        assert claim_by(session, run.id) == 1
    supervisor = Supervisor(sqlite_settings, run.id, 1)

    def rename(old: str, new: str) -> None:
        with database.write() as session:
            session.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    rename("run", "away")
    preparing = threading.Thread(target=supervisor._prepare, args=(run,))
    preparing.start()
    wait_until(lambda: "trying again" in caplog.text, timeout_s=60, what="the trouble to be noticed")
    rename("away", "run")
    preparing.join(timeout=60)
    assert_inherited(sqlite_settings.run_dir(run.id))


def assert_inherited(own: RunDir) -> None:
    assert [checkpoint.step for checkpoint in own.published()] == [20, 30]
    for checkpoint in own.published():
        verify_checkpoint(checkpoint)
