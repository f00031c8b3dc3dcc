"""What the successor of a run starts with."""

from rows import add_checkpoint, add_run
from server.db.session import Database
from server.settings import Settings
from sparsify_core.manifest import delete_checkpoint, verify_checkpoint
from worker.inherit import inherit_checkpoints


def test_the_newest_two_checkpoints_are_linked_and_intact(sqlite_settings: Settings) -> None:
    database = Database(sqlite_settings)
    with database.write() as session:
        first = add_run(session)
        for step in (10, 20, 30):
            add_checkpoint(session, sqlite_settings, first, step)
        # One in between that never got as far as saving.
        second = add_run(session, retry_of=first.id)
        third = add_run(session, retry_of=second.id)
        fresh = add_run(session)
    assert inherit_checkpoints(database, sqlite_settings, third) == [30, 20]
    own = sqlite_settings.run_dir(third.id)
    assert [checkpoint.step for checkpoint in own.published()] == [20, 30]
    for checkpoint in own.published():
        verify_checkpoint(checkpoint)
    weights = own.checkpoint(30).coder("layers.5").weights
    assert (
        weights.stat().st_ino
        == sqlite_settings.run_dir(first.id).checkpoint(30).coder("layers.5").weights.stat().st_ino
    )
    delete_checkpoint(own.checkpoint(30))
    verify_checkpoint(sqlite_settings.run_dir(first.id).checkpoint(30))
    assert inherit_checkpoints(database, sqlite_settings, third) == []  # it has one of its own
    assert inherit_checkpoints(database, sqlite_settings, fresh) == []
