"""Brings the database to the newest schema, in this process."""

from pathlib import Path

from alembic import command
from alembic.config import Config

from server.settings import Settings

_ROOT = Path(__file__).resolve().parents[2]


def alembic_config(settings: Settings) -> Config:
    """Alembic's configuration for the deployment's database."""
    config = Config(_ROOT / "alembic.ini")
    config.set_main_option("script_location", str(_ROOT / "migrations").replace("%", "%%"))
    config.attributes["settings"] = settings
    return config


def upgrade(settings: Settings) -> None:
    """Run all migrations that the database has not seen. Creates it where it does not exist (SQLite)."""
    command.upgrade(alembic_config(settings), "head")
