"""What must be right before anything is started: disk space, tables."""

import shutil
from pathlib import Path

from alembic.util import CommandError
from sqlalchemy.exc import SQLAlchemyError

from server.db.migrate import upgrade
from server.launch.errors import LaunchError
from server.settings import Settings

_NEEDED_MB = 200


def check_space(folder: Path) -> None:
    free_mb = shutil.disk_usage(folder).free // 1_000_000
    if free_mb < _NEEDED_MB:
        raise LaunchError(
            f"only {free_mb} MB are free on the disk of {folder}, {_NEEDED_MB} MB are needed: free some space and "
            "start again; nothing is lost"
        )


def migrate(settings: Settings) -> None:
    """Bring the tables up to date. Raises LaunchError when the database cannot be reached or written."""
    try:
        upgrade(settings)
    except CommandError as error:
        raise LaunchError(f"the database was written by a newer Sparseboard: update this one ({error})") from error
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        where = "the database in DATABASE_URL" if settings.database_url else f"the database in {settings.data_dir}"
        raise LaunchError(f"{where} cannot be used: {reason}") from error
