"""Engines and sessions for SQLite and Postgres.

SQLite runs in WAL mode, and every writing transaction starts with BEGIN IMMEDIATE: a deferred transaction that reads
first and writes later fails at once with SQLITE_BUSY, whatever the busy timeout says.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Engine, event
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlmodel import Session, create_engine

from server.settings import Settings

_POSTGRES = {
    "connect_timeout": 5,
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
"""libpq's parameters, in seconds and milliseconds: a connection whose packets are dropped is given up in ten seconds,
before its holder's lease is over."""
_POOL_TIMEOUT_S = 10
_TURN_TIMEOUT_S = 20


def make_engine(settings: Settings) -> Engine:
    """Engine for the deployment's database; creates the data folder for SQLite."""
    url = settings.resolved_database_url
    # A list of runs has six JSON columns of fifty rows: pydantic reads them in half the time of json.loads.
    create = partial(create_engine, url, json_deserializer=from_json, pool_size=10, pool_timeout=_POOL_TIMEOUT_S)
    if not url.startswith("sqlite"):
        return create(pool_pre_ping=True, max_overflow=20, connect_args=_POSTGRES)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    # As many connections as the server has threads: those that wait for the lock must not keep readers waiting too.
    engine = create(max_overflow=30, connect_args={"check_same_thread": False, "timeout": 10})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's own BEGIN below, not the driver's
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Any) -> None:
    immediate = connection.get_execution_options().get("sqlite_immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


class Database:
    """Hands out short sessions: `read()` never writes and sees one moment of the database, whatever others commit;
    `write()` commits at its end or rolls back on any error.
    """

    def __init__(self, settings: Settings) -> None:
        self.engine = make_engine(settings)
        self._writer = self.engine.execution_options(sqlite_immediate=True)
        is_sqlite = self.engine.dialect.name == "sqlite"  # whose readers see one moment anyway
        self._reader = self.engine if is_sqlite else self.engine.execution_options(isolation_level="REPEATABLE READ")
        # SQLite lets writers poll for its lock, and of many some get it too late: those of a process queue for this.
        self._writing = threading.Lock() if is_sqlite else None
        self._reading = threading.Lock() if is_sqlite else None

    @contextmanager
    def read(self) -> Iterator[Session]:
        with Session(self._reader, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def read_briefly(self) -> Iterator[Session]:
        """As `read()`, for what takes milliseconds and many ask at once. SQLite's driver lets go of the interpreter at
        every row: threads that read together hand it to and fro, and all of them get fewer answers than one by one.
        """
        with _held(self._reading), self.read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        with Session(self._writer, expire_on_commit=False) as session:
            with _held(self._writing), session.begin():
                yield session
            for action in session.info.get(_AFTER_COMMIT, ()):
                action()


@contextmanager
def _held(lock: "threading.Lock | None") -> Iterator[None]:
    """Have one's turn in this process, where there are turns."""
    if lock is None:
        yield
        return
    if not lock.acquire(timeout=_TURN_TIMEOUT_S):
        raise PoolTimeoutError(f"other transactions of this process have gone before for {_TURN_TIMEOUT_S} s")
    try:
        yield
    finally:
        lock.release()


_AFTER_COMMIT = "after_commit"


def after_commit(session: Session, action: Callable[[], object]) -> None:
    """Have `action` called once the `write()` that handed out `session` has committed; never if it rolls back."""
    session.info.setdefault(_AFTER_COMMIT, []).append(action)
