"""The migrations make exactly the tables that the code has."""

import sqlite3
from math import nan
from pathlib import Path

from alembic import command
from sqlmodel import select

from server.db.migrate import alembic_config, upgrade
from server.db.runs import active
from server.db.series import Point, drawn_on
from server.db.series.packing import pack_points
from server.db.session import Database
from server.db.tables import Run
from server.db.tables.values import RunValue
from server.db.workers import held_devices
from server.settings import Settings


def test_the_migrated_schema_is_the_schema_of_the_tables(settings: Settings) -> None:
    command.check(alembic_config(settings))


def insert_run(connection: sqlite3.Connection) -> None:
    """A run as tables of version 0002 have it."""
    columns = "name, intent, config, config_version, num_processes, priority, created_at, heartbeat, reason_code, "
    columns += "phase, step, total_steps, tokens_per_step, coders, latest, id, state, queued_at, fence, failures"
    config, coders, latest = '{"model": "M", "sae": {"k": 32}}', '["a", "b"]', '{"fvu/a": 0.5, "fvu/b": 0.25}'
    numbers = f"1, 1, 0, 1.0, 0, '', '', 0, 0, 0, '{coders}', '{latest}'"
    held = f"'École', 'run', '{config}', {numbers}, 'r1', 'running', 5.0, 2, 1"
    connection.execute(f"INSERT INTO run ({columns}) VALUES ({held})")


def test_a_run_that_is_being_trained_keeps_its_devices(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url="")
    command.upgrade(alembic_config(settings), "0002")
    with sqlite3.connect(tmp_path / "sparseboard.db") as connection:
        insert_run(connection)
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


def test_a_run_of_old_gets_its_sparkline_and_is_found(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url="")
    command.upgrade(alembic_config(settings), "0002")
    with sqlite3.connect(tmp_path / "sparseboard.db") as connection:
        insert_run(connection)
    command.upgrade(alembic_config(settings), "0011")
    sealed = [Point(step, 1, step, 0.0, step / 8) for step in range(1, 65)]
    with sqlite3.connect(tmp_path / "sparseboard.db") as connection:
        chunk = ("r1", "fvu/a", 0, 1, 1, 64, 1, 64, 64, 64, pack_points(sealed))
        connection.execute("INSERT INTO metric_chunk VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", chunk)
        for seq, step, value in ((1, 64, 7.0), (2, 70, None)):
            values = (2, seq, step, value, "nan" if value is None else "finite")
            columns = "run_id, key, ts, attempt, seq, step, value, kind"
            connection.execute(f"INSERT INTO metric_point ({columns}) VALUES ('r1', 'fvu/a', 0, ?, ?, ?, ?, ?)", values)
    upgrade(settings)
    with Database(settings).read() as session:
        run = session.get_one(Run, "r1")
        spark = run.spark
        assert (run.folded_name, run.folded_notes) == ("école", "")
        assert spark == drawn_on({"steps": [], "values": []}, [*sealed, Point(64, 2, 1, 0, 7), Point(70, 2, 2, 0, nan)])
        found = {row.key: row.text if row.num is None else row.num for row in session.exec(select(RunValue))}
    assert found == {"model": "m", "sae.k": 32.0, "metric.fvu": 0.375}


def test_upgrading_twice_changes_nothing(settings: Settings) -> None:
    upgrade(settings)
    command.check(alembic_config(settings))
