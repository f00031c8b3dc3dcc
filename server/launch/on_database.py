"""What the subcommands that work on the database share."""

import argparse
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from server.db.session import Database
from server.errors import AppError
from server.launch.errors import LaunchError
from server.settings import Settings
from sparsify_core.errors import SparsifyError

Command = Callable[[Session, argparse.Namespace, Settings], list[str]]


def run(command: Command, arguments: argparse.Namespace, settings: Settings) -> list[str]:
    """Carry a subcommand out in one transaction; returns what to print.

    Raises LaunchError with one sentence for what cannot be done.
    """
    database = Database(settings)
    try:
        with database.write() as session:
            return command(session, arguments, settings)
    except (AppError, SparsifyError) as error:
        raise LaunchError(str(error)) from error
    except SQLAlchemyError as error:
        raise LaunchError(
            f"the database of {settings.data_dir} cannot be used ({str(error).splitlines()[0]}): "
            "was Sparseboard ever started with this folder?"
        ) from error
    finally:
        database.engine.dispose()
