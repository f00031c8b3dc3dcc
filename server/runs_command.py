"""`sparseboard runs ...`: list, launch and control runs, through the services that the REST API uses.

It works on the database, so also while no server runs; workers that are not told look for themselves every few seconds.
"""

import argparse
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from server.db.states import RunState
from server.launch_flags import add_launch_flags

if TYPE_CHECKING:  # imported only to work: --help is instant
    from sqlmodel import Session

    from server.db.tables import Run
    from server.settings import Settings

_ACTIONS = {
    "pause": "save a checkpoint, give the devices back, and wait for `resume`",
    "resume": "queue a paused run again; it goes on from its newest intact checkpoint",
    "requeue": "save, give the devices back and queue behind the others; or end the wait between two tries",
    "retry": "queue a run that goes on where this failed or cancelled one saved last",
    "clone": "queue a run with the same configuration, from the beginning",
}
_ACTOR = "command line"


def add_parsers(runs: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Add the subcommands to `sparseboard runs`, and hand each out for what they share."""
    commands = runs.add_subparsers(metavar="COMMAND", dest="action", required=True)
    listing = commands.add_parser("list", help="the newest runs")
    listing.add_argument(
        "search", nargs="?", default="", help="what to look for, as in the search box: 'k>32 tag:paper'"
    )
    states = [state.value for state in RunState]
    listing.add_argument("--state", choices=states, metavar="STATE", help="only those in this state")
    listing.add_argument("--limit", type=int, default=20, help="how many (default 20)")
    yield listing
    show = commands.add_parser("show", help="one run and its history")
    show.add_argument("run", metavar="ID")
    yield show
    launch = commands.add_parser(
        "launch",
        help="queue a run: MODEL DATASET and the flags of `python -m sparsify_core`, or --config FILE",
        usage="%(prog)s [--name NAME] [--num-processes N] [--num-nodes N] [--min-memory-gb GB] "
        "[--label LABEL] [--config FILE] [MODEL] [DATASET] [--flag value ...]",
        epilog="How to train: the flags that `python -m sparsify_core --help` lists.",
        allow_abbrev=False,
    )
    add_launch_flags(launch)
    launch.add_argument("--config", help="JSON or YAML file, also with a section `run`; flags override it")
    launch.set_defaults(takes_flags=True)
    yield launch
    cancel = commands.add_parser("cancel", help="end runs; those that are over stay as they are")
    cancel.add_argument("runs", metavar="ID", nargs="*")
    cancel.add_argument("--all", action="store_true", help="all that are not over")
    yield cancel
    move = commands.add_parser("move", help="change a run's place in the queue")
    move.add_argument("run", metavar="ID")
    place = move.add_mutually_exclusive_group(required=True)
    place.add_argument("--ahead-of", metavar="ID", help="directly before this run, with its priority")
    place.add_argument("--behind-of", metavar="ID", help="directly behind this run, with its priority")
    place.add_argument("--first", action="store_true", help="before all that wait")
    place.add_argument("--last", action="store_true", help="behind all that wait")
    yield move
    for name, text in _ACTIONS.items():
        action = commands.add_parser(name, help=text)
        action.add_argument("run", metavar="ID")
        yield action


def carry_out(session: "Session", arguments: argparse.Namespace, settings: "Settings") -> list[str]:
    """Carry a subcommand out; returns what to print. Raises what the services raise."""
    from server.errors import InvalidError
    from server.services import control, run_list, runs

    how: dict[str, Any] = {"settings": settings, "actor": _ACTOR}
    match arguments.action:
        case "list":
            page = run_list.list_runs(session, q=arguments.search, state=arguments.state, limit=arguments.limit)
            return [_line(each) for each in page.items]
        case "show":
            return _describe(session, runs.get_run(session, arguments.run))
        case "launch":
            return [_line(_launch(session, arguments, how))]
        case "cancel":
            if bool(arguments.runs) == arguments.all:
                raise InvalidError("Name the runs to cancel, or give --all.")
            ids = None if arguments.all else arguments.runs
            return [_line(each) for each in control.cancel_runs(session, ids, **how)]
        case "move" if arguments.ahead_of or arguments.behind_of:
            ahead = arguments.ahead_of is not None
            beside = arguments.ahead_of or arguments.behind_of
            return [_line(control.move_beside(session, arguments.run, beside, ahead=ahead, **how))]
        case "move":
            return [_line(control.move_to_end(session, arguments.run, first=arguments.first, **how))]
        case name:
            action = getattr(control, f"{name}_run")
            return [_line(action(session, arguments.run, **how))]


def _launch(session: "Session", arguments: argparse.Namespace, how: dict[str, Any]) -> "Run":
    from pathlib import Path

    from pydantic import ValidationError

    from server.services.notation.reading import NotationError, launch_of
    from server.services.requests import LAUNCH_FIELDS, RunRequest
    from server.services.runs import create_run
    from sparsify_core.config import RunConfig, iter_fields, nest
    from sparsify_core.config.run import LAUNCH_SECTION
    from sparsify_core.errors import ConfigError
    from sparsify_core.flags import FlagParser, explain, load_file, merge

    parser = FlagParser(
        iter_fields(RunConfig),
        prog="sparseboard runs launch",
        usage="%(prog)s --help",
        description="",
        positional=("model", "dataset"),
    )
    base = load_file(Path(arguments.config)) if arguments.config else {}
    flags = {name: getattr(arguments, name) for name in LAUNCH_FIELDS if hasattr(arguments, name)}
    try:
        section = launch_of(base.pop(LAUNCH_SECTION, None), lambda _: None, below=(LAUNCH_SECTION,))
        given = section | flags | {"config": merge(base, nest(parser.read(arguments.flags)))}
        request = RunRequest.model_validate(given)
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    except NotationError as error:
        raise ConfigError(str(error)) from None
    return create_run(session, request, **how)


def _line(run: "Run") -> str:
    progress = f"{run.step}/{run.total_steps}" if run.total_steps else "-"
    return f"{run.id}  {run.state:<10}  {progress:>13}  {run.name}{f'  ({note})' if (note := _note(run)) else ''}"


def _note(run: "Run") -> str:
    return run.waits_for if run.state == "queued" else run.message


def _describe(session: "Session", run: "Run") -> list[str]:
    from server.services.runs import history

    facts = {
        "name": run.name,
        "state": run.state,
        "step": f"{run.step} of {run.total_steps}",
        "priority": str(run.priority),
        "attempts": str(run.attempt),
        "failures, losses": f"{run.failures}, {run.losses}",
        "why": f"{run.reason_code} {_note(run)}".strip(),
        "retry of": run.retry_of or "",
        "copy of": run.cloned_from or "",
    }
    events = [
        f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(event.ts))}  {event.kind:<12}  {event.actor}"
        f"{f': {event.detail}' if event.detail else ''}"
        for event in history(session, run.id)
    ]
    return [run.id, *(f"  {name:<17} {value}" for name, value in facts.items() if value), *events]
