"""What was placed on a worker gets one supervisor, whatever happens to the worker meanwhile."""

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from rows import add_worker
from server.db.placing import place_queued
from server.db.runs import assigned, set_supervisor
from server.db.session import Database
from server.db.tables import AttemptNode, ProcessIdentity, Run, RunState
from server.settings import Settings
from services import python
from worker import processes
from worker.starter import Starter


@pytest.fixture
def placed(database: Database) -> Iterator[tuple[str, str]]:
    """Ids of a worker and of a run that was placed on it."""
    with database.write() as session:
        worker = add_worker(session, boot_id=processes.boot_id())
        run = Run(name="a", config={})
        session.add(run)
        session.flush()
        place_queued(session, actor="test", now=time.time())
    yield worker.id, run.id
    processes.kill_run(run.id, up_to_fence=1)


def test_a_placed_run_is_started_once(database: Database, settings: Settings, placed: tuple[str, str]) -> None:
    worker_id, run_id = placed
    assert Starter(database, settings, worker_id="another").start() == []
    starter = Starter(database, settings, worker_id=worker_id)
    assert starter.start() == [run_id]
    assert starter.start() == []
    assert Starter(database, settings, worker_id=worker_id).start() == []  # the worker was restarted
    with database.read() as session:
        assert session.get_one(AttemptNode, (run_id, 1, 0)).supervisor_pid > 0


def test_what_was_placed_before_a_reboot_is_left_to_the_reaper(database: Database, placed: tuple[str, str]) -> None:
    worker_id, _ = placed
    with database.read() as session:
        assert assigned(session, worker_id, boot_id="another boot") == []
        assert len(assigned(session, worker_id, boot_id=processes.boot_id())) == 1


def test_a_second_supervisor_of_a_node_leaves_it_alone(
    database: Database, settings: Settings, placed: tuple[str, str]
) -> None:
    _, run_id = placed
    with database.write() as session:
        mine = processes.identity(os.getpid())
        assert set_supervisor(session, run_id, 1, mine)
        assert set_supervisor(session, run_id, 1, mine)
        assert not set_supervisor(session, run_id, 1, ProcessIdentity(**(mine | {"pid_namespace": "another"})))
    environment = os.environ | {"SPARSEBOARD_DATA_DIR": str(settings.data_dir), "DATABASE_URL": settings.database_url}
    second = subprocess.run(python("-m", "worker.supervisor", run_id, "1", "0"), env=environment, timeout=60)
    assert second.returncode == 3
    with database.read() as session:
        assert session.get_one(AttemptNode, (run_id, 1, 0)).supervisor_pid == os.getpid()


def test_a_run_whose_folder_cannot_be_written_fails_with_the_reason(
    database: Database, settings: Settings, placed: tuple[str, str]
) -> None:
    worker_id, run_id = placed
    (settings.data_dir / "runs").write_text("in the way")
    Starter(database, settings, worker_id=worker_id).start()
    with database.read() as session:
        run = session.get_one(Run, run_id)
    assert (run.state, run.reason_code, run.failures) == (RunState.FAILED, "start_failed", 1)
