"""The migrations make exactly the tables that the code has."""

from alembic import command

from server.db.migrate import alembic_config, upgrade
from server.settings import Settings


def test_the_migrated_schema_is_the_schema_of_the_tables(settings: Settings) -> None:
    command.check(alembic_config(settings))


def test_upgrading_twice_changes_nothing(settings: Settings) -> None:
    upgrade(settings)
    command.check(alembic_config(settings))
