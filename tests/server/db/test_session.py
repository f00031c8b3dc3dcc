"""Sessions on both databases."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.db.session import Database

THREADS = 8


def test_brief_reads_of_sqlite_come_one_after_the_other(database: Database) -> None:
    """PostgreSQL's do not: waiting for its answers keeps nobody from the interpreter."""
    is_sqlite = database.engine.dialect.name == "sqlite"
    inside: list[int] = []
    most: list[int] = []
    together = threading.Barrier(THREADS)

    def read(number: int) -> None:
        with database.read_briefly():
            inside.append(number)
            if not is_sqlite:
                together.wait(60)
            time.sleep(0.005)
            most.append(len(inside))
            inside.remove(number)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(read, range(THREADS)))
    assert max(most) == (1 if is_sqlite else THREADS)


def test_a_brief_read_that_fails_lets_the_next_one_in(database: Database) -> None:
    for _ in range(2):
        with pytest.raises(LookupError), database.read_briefly():
            raise LookupError
