"""`sparseboard workers ...`: list workers and what is in quarantine, and lift a quarantine."""

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # imported only to work: --help is instant
    from sqlmodel import Session

    from server.settings import Settings


def add_parsers(workers: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Add the subcommands to `sparseboard workers`, and hand each out for what they share."""
    commands = workers.add_subparsers(metavar="COMMAND", dest="action", required=True)
    yield commands.add_parser("list", help="all workers, and which of their devices are in quarantine")
    lift = commands.add_parser("lift", help="give a quarantined device back, when nothing uses it any more")
    lift.add_argument("worker", metavar="NAME")
    lift.add_argument("kind", choices=("gpu", "cpu"))
    lift.add_argument("index", type=int)
    lift.add_argument("--confirm", action="store_true", required=True, help="somebody has looked: nothing uses it")
    yield lift


def carry_out(session: "Session", arguments: argparse.Namespace, settings: "Settings") -> list[str]:
    """Returns what to print. Raises NotFoundError."""
    from server.services import workers

    rows = workers.list_workers(session)
    if arguments.action == "lift":
        worker_id = next((row.id for row in rows if row.name == arguments.worker), "")
        _lift(session, worker_id, arguments, settings)
    names = {row.id: row.name for row in rows}
    lines = [f"{row.name}  {row.state if workers.is_alive(row) else 'silent'}" for row in rows]
    quarantine = [
        f"in quarantine: {names[lease.worker_id]} {lease.kind} {lease.index}, run {lease.run_id}: {lease.reason}"
        for lease in workers.quarantined(session)
    ]
    return lines + quarantine


def _lift(session: "Session", worker_id: str, arguments: argparse.Namespace, settings: "Settings") -> None:
    from server.errors import NotFoundError
    from server.scheduling import DeviceKind
    from server.services import workers

    kind, index = DeviceKind(arguments.kind), arguments.index
    before = workers.quarantined(session, worker_id)
    workers.lift_quarantine(session, worker_id, kind, index, settings=settings, actor="command line")
    if (kind, index) not in {(lease.kind, lease.index) for lease in before}:
        raise NotFoundError(f"{kind} {index} of {arguments.worker} is not in quarantine: `workers list` says what is.")
