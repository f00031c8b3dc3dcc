"""Engines and sessions for SQLite and Postgres.

SQLite runs in WAL mode, and every writing transaction starts with BEGIN IMMEDIATE: a deferred transaction that reads
first and writes later fails at once with SQLITE_BUSY, whatever the busy timeout says.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event
from sqlmodel import Session, create_engine

from server.settings import Settings

_CONNECT_TIMEOUT_S = 5
_POOL_TIMEOUT_S = 10


def make_engine(settings: Settings) -> Engine:
    """Engine for the deployment's database; creates the data folder for SQLite."""
    url = settings.resolved_database_url
    if not url.startswith("sqlite"):
        connect = {"connect_timeout": _CONNECT_TIMEOUT_S}
        return create_engine(
            url, pool_pre_ping=True, pool_size=10, max_overflow=20, pool_timeout=_POOL_TIMEOUT_S, connect_args=connect
        )
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    connect = {"check_same_thread": False, "timeout": 10}
    # As many connections as the server has threads: those that wait for the lock must not keep readers waiting too.
    engine = create_engine(url, pool_size=10, max_overflow=30, pool_timeout=_POOL_TIMEOUT_S, connect_args=connect)
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
    """Hands out short sessions: `read()` never writes, `write()` commits at its end or rolls back on any error."""

    def __init__(self, settings: Settings) -> None:
        self.engine = make_engine(settings)
        self._writer = self.engine.execution_options(sqlite_immediate=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        with Session(self._writer, expire_on_commit=False) as session:
            with session.begin():
                yield session
            for action in session.info.get(_AFTER_COMMIT, ()):
                action()


_AFTER_COMMIT = "after_commit"


def after_commit(session: Session, action: Callable[[], object]) -> None:
    """Have `action` called once the `write()` that handed out `session` has committed; never if it rolls back."""
    session.info.setdefault(_AFTER_COMMIT, []).append(action)
