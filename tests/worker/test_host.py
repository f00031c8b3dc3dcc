"""A worker goes on whatever its surroundings do."""

import shutil

from sqlmodel import select

from server.db.session import Database
from server.db.tables import Worker, WorkerSample
from server.settings import Settings
from worker.host import HostWorker


def test_a_disk_that_does_not_answer_does_not_stop_the_tick(database: Database, settings: Settings) -> None:
    away = settings.data_dir / "away"
    found = settings.model_copy(update={"data_dir": away, "database_url": settings.resolved_database_url})
    host = HostWorker(found)
    with database.read() as session:
        registered_at = session.exec(select(Worker.seen_at)).one()
    shutil.rmtree(away)
    host.tick()
    with database.read() as session:
        assert session.exec(select(Worker.seen_at)).one() > registered_at
        assert session.exec(select(WorkerSample)).all() == []
