"""The migrations make exactly the tables that the code has."""

import sqlite3
from pathlib import Path

from alembic import command

from server.db.migrate import alembic_config, upgrade
from server.db.runs import active
from server.db.session import Database
from server.db.tables import Run
from server.db.workers import held_devices
from server.settings import Settings


def test_the_migrated_schema_is_the_schema_of_the_tables(settings: Settings) -> None:
    command.check(alembic_config(settings))


def test_a_run_that_is_being_trained_keeps_its_devices(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url="")
    command.upgrade(alembic_config(settings), "0002")
    with sqlite3.connect(tmp_path / "sparseboard.db") as connection:
        columns = "name, intent, config, config_version, num_processes, priority, created_at, heartbeat, reason_code, "
        columns += "phase, step, total_steps, tokens_per_step, coders, latest, id, state, queued_at, fence, failures"
        held = "'n', 'run', '{}', 1, 1, 0, 1.0, 0, '', '', 0, 0, 0, '[]', '{}', 'r1', 'running', 5.0, 2, 1"
        connection.execute(f"INSERT INTO run ({columns}) VALUES ({held})")
        columns = "run_id, attempt, worker_id, host, devices, supervisor_pid, supervisor_started, started_at, outcome, "
        columns += "resumed_step, event_offset, event_seq"
        for attempt, devices in ((1, "[7]"), (2, "[0, 3]")):
            values = f"'r1', {attempt}, 'w', 'h', '{devices}', 42, 1.5, 2.0, '', 0, 100, 3"
            connection.execute(f"INSERT INTO attempt ({columns}) VALUES ({values})")
    upgrade(settings)
    with Database(settings).read() as session:
        run = session.get_one(Run, "r1")
        assert (run.rank, run.attempt, run.failures, run.losses) == (5.0, 2, 0, 1)
        assert {(one.kind, one.index) for one in held_devices(session)} == {("gpu", 0), ("gpu", 3)}
        (held_by,) = active(session)
        assert (held_by[1].supervisor_pid, held_by[1].devices) == (42, [0, 3])


def test_upgrading_twice_changes_nothing(settings: Settings) -> None:
    upgrade(settings)
    command.check(alembic_config(settings))
