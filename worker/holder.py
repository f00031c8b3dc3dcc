"""Holds a node of an attempt: renews its heartbeat, reads what is wanted of the run, bears a database in trouble."""

import logging
import os
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from server.db.runs import Orders, drain, heartbeat, nodes_of, orders, set_supervisor
from server.db.session import Database
from server.db.tables import AttemptNode, Intent, Run, RunState
from server.db.workers import has_other_hosts
from server.settings import Settings
from worker import processes

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often the user's wish is read."""
HEARTBEATS = 12
"""How often a lease is renewed before it would end."""
GIVEN_UP_FRAC = 0.75
"""Part of the lease without a renewal after which training is ended, where a worker on another machine might still
reach the database and take the run."""
OUTAGE_S = 1800.0
"""How long training goes on without the database where there are no other machines: who could take the run cannot
reach the database either, and starts counting anew when it is back."""
_CONCLUDE_FOR_S = 600.0

T = TypeVar("T")


class LostLeaseError(Exception):
    """The run belongs to somebody else by now, or may soon."""


class Holder:
    """One node of attempt `fence` of a run."""

    def __init__(self, settings: Settings, run_id: str, fence: int, node: int) -> None:
        self._settings = settings
        self._database = Database(settings)
        self._run_id = run_id
        self._fence = fence
        self._node = node
        self._orders = Orders(RunState.STARTING, Intent.RUN)
        self._renewed_at = time.monotonic()
        self._is_alone = False
        self._heartbeat_due = 0.0
        self._look_due = 0.0

    def _load(self) -> tuple[Run, list[AttemptNode]]:
        with self._database.read() as session:
            run, nodes = session.get(Run, self._run_id), nodes_of(session, self._run_id, self._fence)
            if run is None or len(nodes) <= self._node or orders(session, self._run_id, self._fence) is None:
                raise LostLeaseError("the run is not held by this attempt")
            return run, nodes

    def _register(self) -> None:
        # The worker does so too, but may be killed before it gets there.
        with self._database.write() as session:
            supervisor = processes.identity(os.getpid())
            if not set_supervisor(session, self._run_id, self._fence, supervisor, node=self._node):
                raise LostLeaseError("another supervisor carries out this node")

    def _look(self) -> None:
        """Renew the lease when that is due, and learn what the user wants."""
        now = time.monotonic()
        if now >= self._heartbeat_due:
            self._heartbeat_due = now + self._settings.lease_s / HEARTBEATS
            self._see(self._patiently(self._renew))
            self._keep_house()
        elif now >= self._look_due:
            self._see(self._patiently(self._read_orders))
        given_up_s = OUTAGE_S if self._is_alone else self._settings.lease_s * GIVEN_UP_FRAC
        if time.monotonic() - self._renewed_at > given_up_s:
            raise LostLeaseError(f"the database could not be reached for {given_up_s:.0f} s")

    def _keep_house(self) -> None:
        """What is done at every heartbeat besides it."""

    def _see(self, seen: Orders | None) -> None:
        self._look_due = time.monotonic() + LOOK_S
        if seen is not None:
            self._orders = seen

    def _renew(self) -> Orders:
        with self._database.write() as session:
            seen = heartbeat(session, self._run_id, self._fence, node=self._node)
            self._is_alone = not has_other_hosts(session, socket.gethostname(), processes.pid_namespace())
        if seen is None:
            raise LostLeaseError("the run was taken away")
        self._renewed_at = time.monotonic()
        return seen

    def _read_orders(self) -> Orders:
        with self._database.read() as session:
            seen = orders(session, self._run_id, self._fence)
        if seen is None:
            raise LostLeaseError("the run was taken away")
        return seen

    def _announce_drain(self) -> Orders:
        with self._database.write() as session:
            drain(session, self._run_id, self._fence)
        return self._read_orders()

    def _patiently(self, action: Callable[[], T]) -> T | None:
        """Try once; a database in trouble is logged and tried again in the next round."""
        try:
            return action()
        except (DBAPIError, PoolTimeoutError) as error:
            logger.warning("the database is in trouble, training goes on: %s", error)
            return None

    def _persistently(self, action: Callable[[], T]) -> T:
        """Try until it works, for ten minutes."""
        deadline = time.monotonic() + _CONCLUDE_FOR_S
        while True:
            try:
                return action()
            except (DBAPIError, PoolTimeoutError) as error:
                if time.monotonic() > deadline:
                    raise LostLeaseError("the database could not be reached") from error
                logger.warning("the database is in trouble, trying again: %s", error)
                time.sleep(1.0)
