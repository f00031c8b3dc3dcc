"""Runs the migrations on the database of the deployment's settings."""

from alembic import context
from sqlmodel import SQLModel

from server.db import tables  # noqa: F401 - fills the metadata
from server.db.session import make_engine
from server.settings import get_settings

settings = context.config.attributes.get("settings") or get_settings()
engine = make_engine(settings)
with engine.execution_options(sqlite_immediate=True).connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
engine.dispose()
