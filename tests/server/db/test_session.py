"""Sessions on both databases."""

import threading

from server.db.session import Database


def test_brief_reads_of_sqlite_come_one_after_the_other(database: Database) -> None:
    """PostgreSQL's do not: waiting for its answers keeps nobody from the interpreter."""
    is_sqlite = database.engine.dialect.name == "sqlite"
    entered = threading.Event()

    def read() -> None:
        with database.read_briefly():
            entered.set()

    other = threading.Thread(target=read)
    with database.read_briefly():
        other.start()
        assert entered.wait(0.3 if is_sqlite else 30) is not is_sqlite
    other.join(30)
    assert entered.is_set()


def test_a_brief_read_that_fails_lets_the_next_one_in(database: Database) -> None:
    for _ in range(2):
        try:
            with database.read_briefly():
                raise LookupError
        except LookupError:
            continue
