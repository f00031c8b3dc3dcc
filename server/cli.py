"""The `sparseboard` command. Everything heavy is imported by the subcommand that needs it, so `--help` is instant."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from server import runs_command, workers_command

if TYPE_CHECKING:
    from server.launch.on_database import Command
    from server.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. What the user can put right is one sentence on stderr."""
    parser = _parser()
    arguments, flags = parser.parse_known_args(argv)
    arguments.flags = flags
    if flags and not getattr(arguments, "takes_flags", False):
        parser.error(f"unrecognized arguments: {' '.join(flags)}")
    command: Callable[[argparse.Namespace], int] = arguments.command
    if command is _version:
        return _version(arguments)
    from server.launch.errors import LaunchError

    try:
        return command(arguments)
    except LaunchError as error:
        print(f"sparseboard: {error}", file=sys.stderr)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        print(f"sparseboard: {error.strerror or error}{place}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sparseboard", description="Launch, watch, inspect and publish sparse autoencoders from a browser."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    up = commands.add_parser("up", help="start broker, server and worker, and print a login link")
    up.add_argument("--demo", action="store_true", help="also train the demo: a real sparse autoencoder, in minutes")
    up.add_argument("--port", type=_port, help="port to listen on, 0 for any free one (default 8420)")
    up.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    up.add_argument("--behind-proxy", action="store_true", help="allow an address that other machines reach")
    up.add_argument("--no-worker", action="store_true", help="do not train on this machine")
    up.set_defaults(command=_up)

    worker = commands.add_parser("worker", help="train for a server elsewhere (DATABASE_URL, REDIS_URL, shared data)")
    worker.add_argument("--name", dest="worker_name", help="name of the worker (default: the machine's host name)")
    worker.add_argument(
        "--label",
        dest="worker_labels",
        action="append",
        metavar="LABEL",
        help="what runs may ask of this worker, such as a100; may be given several times",
    )
    worker.set_defaults(command=_worker)
    migrate = commands.add_parser("migrate", help="bring the database up to date")
    migrate.set_defaults(command=_migrate)
    login = commands.add_parser("login", help="print a new one-time login link")
    login.set_defaults(command=_login)
    doctor = commands.add_parser("doctor", help="check everything that Sparseboard needs, and say what to do")
    doctor.add_argument("--train", action="store_true", help="also train a tiny model from end to end (half a minute)")
    doctor.set_defaults(command=_doctor)
    for command in (up, worker, migrate, login, doctor):
        command.add_argument("--data-dir", type=Path, help="folder of everything that Sparseboard keeps")
    runs = commands.add_parser("runs", help="list, launch and control runs")
    for command in runs_command.add_parsers(runs):
        command.add_argument("--data-dir", type=Path, help="folder of everything that Sparseboard keeps")
        command.set_defaults(command=_runs)
    workers = commands.add_parser("workers", help="list workers, and lift the quarantine of a device")
    for command in workers_command.add_parsers(workers):
        command.add_argument("--data-dir", type=Path, help="folder of everything that Sparseboard keeps")
        command.set_defaults(command=_workers)
    version = commands.add_parser("version", help="print the version")
    version.set_defaults(command=_version)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _settings(arguments: argparse.Namespace) -> "Settings":
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from server.launch.errors import LaunchError
    from server.settings import Settings

    names = ("data_dir", "host", "port", "worker_name", "worker_labels")
    given = {name: value for name in names if (value := getattr(arguments, name, None)) is not None}
    try:
        settings = Settings(**given)
    except SettingsError as error:
        raise LaunchError(f'{error}: lists are written as JSON, for example ["/path"]') from error
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise LaunchError(f"the setting {name} is wrong: {first['msg']}, got {first['input']!r}") from error
    return settings.model_copy(update={"data_dir": settings.data_dir.expanduser().resolve()})


def _up(arguments: argparse.Namespace) -> int:
    from server.launch.up import UpOptions, up

    options = UpOptions(
        demo=arguments.demo, with_worker=not arguments.no_worker, is_behind_proxy=arguments.behind_proxy
    )
    return up(_settings(arguments), options)


def _worker(arguments: argparse.Namespace) -> int:
    from server.launch.up import serve_worker

    return serve_worker(_settings(arguments))


def _migrate(arguments: argparse.Namespace) -> int:
    from server.launch.prepare import migrate

    migrate(_settings(arguments))
    print("the database is up to date")
    return 0


def _login(arguments: argparse.Namespace) -> int:
    from sqlalchemy.exc import SQLAlchemyError

    from server.db.session import Database
    from server.launch.errors import LaunchError
    from server.launch.lock import holder
    from server.launch.network import browser_url
    from server.launch.up import login_url

    settings = _settings(arguments)
    url = settings.public_url or holder(settings.data_dir).get("url") or browser_url(settings.host, settings.port)
    try:
        print(login_url(Database(settings), url))
    except SQLAlchemyError as error:
        raise LaunchError(
            f"Sparseboard was never started with {settings.data_dir}: run `sparseboard up` first"
        ) from error
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from server.doctor.run import doctor

    return doctor(_settings(arguments), with_training=arguments.train)


def _runs(arguments: argparse.Namespace) -> int:
    return _print(runs_command.carry_out, arguments)


def _workers(arguments: argparse.Namespace) -> int:
    return _print(workers_command.carry_out, arguments)


def _print(command: "Command", arguments: argparse.Namespace) -> int:
    from server.launch.on_database import run

    for line in run(command, arguments, _settings(arguments)):
        print(line)
    return 0


def _version(_arguments: argparse.Namespace) -> int:
    from importlib.metadata import version

    print(version("sparseboard"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
