"""Long series get small: their rows become chunks, a bite at a time, so that nobody waits for it."""

from server.db.series import CHUNK_POINTS, seal_chunk, unsealed
from server.db.session import Database
from server.db.tables import Run


def seal(database: Database, run_id: str, *, at_least: int = CHUNK_POINTS) -> None:
    """Move hot rows into chunks, of every series and attempt that has so many; one chunk a transaction."""
    while True:
        with database.read() as session:
            full = unsealed(session, run_id, at_least=at_least)
        if not full:
            return
        for key, attempt in full:
            with database.write() as session:
                session.get_one(Run, run_id, with_for_update=True)
                seal_chunk(session, run_id, key, attempt)
