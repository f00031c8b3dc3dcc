"""Brings the database to the newest schema, in this process."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from server.db.session import make_engine
from server.settings import Settings

_MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"


def alembic_config(settings: Settings) -> Config:
    """Alembic's configuration for the deployment's database."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["settings"] = settings
    return config


def upgrade(settings: Settings) -> None:
    """Run all migrations that the database has not seen. Creates it where it does not exist (SQLite)."""
    command.upgrade(alembic_config(settings), "head")


def revisions(settings: Settings) -> tuple[str | None, str | None]:
    """The schema that the database has (None: no tables), and the one that this version needs."""
    engine = make_engine(settings)
    try:
        with engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    return current, ScriptDirectory.from_config(alembic_config(settings)).get_current_head()
