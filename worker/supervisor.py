"""`python -m worker.supervisor RUN_ID FENCE NODE`: carries out one attempt at a run, from the claim to its end.

One process per run, detached from the worker that started it: it holds the lease, starts torchrun, reads its events
into the database, and stops the whole process tree. Training never waits for the database or the broker; if the lease
cannot be renewed for `LEASE_GIVEN_UP_S`, the supervisor ends its own training before another worker may take the run.
Of a run on several nodes this is the leader, node 0; the others are `worker.member`'s.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from server.db.runs import (
    Orders,
    drain,
    heartbeat,
    nodes_of,
    offer_rendezvous,
    orders,
    quarantine,
    set_supervisor,
)
from server.db.session import Database
from server.db.tables import AttemptNode, Intent, Run, RunState
from server.settings import Settings, get_settings
from sparsify_core.events import AttemptFinished
from worker import processes
from worker.ending import conclude, start_failure
from worker.hints import Hints
from worker.ingest import ingest, prune_checkpoints
from worker.inherit import inherit_checkpoints
from worker.members import Members
from worker.orphans import UNKILLABLE
from worker.rendezvous import Rendezvous, free_endpoint, own_address
from worker.trainer import Trainer, trainer_config
from worker.watchdog import Watchdog

logger = logging.getLogger(__name__)

POLL_S = 0.25
LOOK_S = 1.0
"""How often the user's wish is read."""
HEARTBEAT_S = 5.0
LEASE_GIVEN_UP_S = 45.0
GRACE_S = 60.0
"""How long a trainer may take to save when its run is paused or queued again; then it is killed."""
CANCEL_GRACE_S = 6.0
"""The same for a cancelled one: cancelling takes at most ten seconds."""
DRAIN_GRACE_S = 20.0
"""The same when the host stops."""
KILL_GRACE_S = 30.0
"""How long a killed process may hang in the kernel before its devices are quarantined."""
_CONCLUDE_FOR_S = 600.0

T = TypeVar("T")


class LostLeaseError(Exception):
    """The run belongs to somebody else by now, or may soon."""


class Supervisor:
    """Carries out attempt `fence` of a run, or one of its nodes."""

    def __init__(self, settings: Settings, run_id: str, fence: int, node: int = 0) -> None:
        self._settings = settings
        self._database = Database(settings)
        self._hints = Hints(settings.redis_url)
        self._run_id = run_id
        self._fence = fence
        self._node = node
        self._members: Members | None = None
        self._run_dir = settings.run_dir(run_id)
        self._is_drained = False
        self._orders = Orders(RunState.STARTING, Intent.RUN)
        self._renewed_at = time.monotonic()
        self._heartbeat_due = 0.0
        self._look_due = 0.0
        self._event_bytes = 0
        self._watchdog = Watchdog(self._run_dir.pulse(fence), limit_s=settings.stalled_after_s)
        self._cause: AttemptFinished | None = None

    def drain(self, _signal: int, _frame: FrameType | None) -> None:
        """Signal handler: save, stop, and give the run back to the queue."""
        self._is_drained = True

    def run(self) -> int:
        """Returns the exit status: 0 when the run was released, 3 when it was lost to somebody else."""
        try:
            trainer = self._start()
            if trainer is None:
                return self._conclude(None if self._cause else 0)
            try:
                self._watch(trainer)
            finally:
                is_gone = trainer.kill()  # also strays of a torchrun that ended by itself
            if not (is_gone or self._insist(trainer)):
                self._persistently(self._quarantine)
            return self._conclude(trainer.returncode)
        except LostLeaseError as error:
            logger.error("gave up attempt %d of run %s: %s", self._fence, self._run_id, error)
            return 3

    def _start(self) -> Trainer | None:
        run, nodes = self._persistently(self._load)
        self._persistently(self._register)
        self._worker_id = nodes[self._node].worker_id
        processes.kill_run(self._run_id, up_to_fence=self._fence - 1)
        try:
            self._prepare(run)
            rendezvous = self._meet(run, nodes) if len(nodes) > 1 else None
            if len(nodes) > 1 and rendezvous is None:
                return None
            return Trainer(
                self._run_dir,
                fence=self._fence,
                run_id=self._run_id,
                num_processes=run.num_processes,
                devices=nodes[self._node].devices,
                node=self._node,
                rendezvous=rendezvous,
                hf_token=self._settings.hf_token,
            )
        except OSError as error:
            logger.error("training could not be started: %s", error)
            self._cause = start_failure(error)
            return None

    def _load(self) -> tuple[Run, list[AttemptNode]]:
        with self._database.read() as session:
            run, nodes = session.get(Run, self._run_id), nodes_of(session, self._run_id, self._fence)
            if run is None or len(nodes) <= self._node or orders(session, self._run_id, self._fence) is None:
                raise LostLeaseError("the run is not held by this attempt")
            return run, nodes

    def _register(self) -> None:
        # The worker does so too, but may be killed before it gets there.
        pid = os.getpid()
        with self._database.write() as session:
            started = processes.start_time(pid)
            if not set_supervisor(session, self._run_id, self._fence, pid=pid, started=started, node=self._node):
                raise LostLeaseError("another supervisor carries out this node")

    def _meet(self, run: Run, nodes: list[AttemptNode]) -> Rendezvous | None:
        """Say where the nodes of a run on several meet."""
        self._members = Members(self._database, self._run_id, self._fence)
        address = own_address(self._settings.worker_address, [node.host for node in nodes])
        endpoint = free_endpoint(address)

        def offer() -> None:
            with self._database.write() as session:
                offer_rendezvous(session, self._run_id, self._fence, endpoint)

        self._persistently(offer)
        return self._rendezvous(endpoint, nodes)

    def _rendezvous(self, endpoint: str, nodes: list[AttemptNode]) -> Rendezvous:
        address = own_address(self._settings.worker_address, [node.host for node in nodes])
        name = f"{self._run_id}-{self._fence}"
        return Rendezvous(endpoint, name, num_nodes=len(nodes), address=address, is_host=self._node == 0)

    def _prepare(self, run: Run) -> None:
        """Write what the trainer reads, and take over what it goes on from."""
        self._run_dir.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._run_dir.config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(trainer_config(run.config, self._settings.activations_dir), file)
        inherit_checkpoints(self._database, self._settings, run)

    def _watch(self, trainer: Trainer) -> None:
        """Until training has ended: read its events, renew the lease, pass on what the user wants."""
        while trainer.returncode is None:
            trainer.look_after_log()
            self._ingest()
            self._look()
            if self._is_drained and not self._orders.is_to_stop:
                self._see(self._patiently(self._announce_drain))
            if self._members and self._members.are_broken and not self._is_to_stop():
                logger.warning("a node broke and training did not end by itself: it is killed")
                trainer.kill()
            if self._is_to_stop():
                trainer.ask_to_stop()
                if trainer.has_overrun(self._grace_s()):
                    logger.warning("the trainer did not stop in time and is killed")
                    trainer.kill()
            else:
                self._end_if_stalled(trainer)
            time.sleep(POLL_S)

    def _end_if_stalled(self, trainer: Trainer) -> None:
        complaint = self._watchdog.complaint()
        if complaint:
            logger.error("%s", complaint)
            self._cause = AttemptFinished(outcome="failed", reason_code="stalled", message=complaint)
            trainer.kill()

    def _insist(self, trainer: Trainer) -> bool:
        """Kill again what has survived, as long as `KILL_GRACE_S`. Returns whether all are gone."""
        deadline = time.monotonic() + KILL_GRACE_S
        while time.monotonic() < deadline:
            self._look()  # the lease lasts no longer than the wait would
            if trainer.kill():
                return True
            time.sleep(POLL_S)
        return False

    def _quarantine(self) -> None:
        with self._database.write() as session:
            quarantine(session, self._run_id, self._fence, node=self._node, actor="supervisor", reason=UNKILLABLE)

    def _is_to_stop(self) -> bool:
        return self._orders.is_to_stop or self._is_drained

    def _grace_s(self) -> float:
        if self._orders.intent == Intent.CANCEL:
            return CANCEL_GRACE_S
        return DRAIN_GRACE_S if self._is_drained else GRACE_S

    def _announce_drain(self) -> Orders:
        with self._database.write() as session:
            drain(session, self._run_id, self._fence)
        return self._read_orders()

    def _ingest(self) -> None:
        try:
            size = self._run_dir.events(self._fence).stat().st_size
        except FileNotFoundError:
            return
        if size == self._event_bytes:
            return
        if self._patiently(lambda: ingest(self._database, self._run_dir, self._run_id, self._fence)) is not None:
            self._event_bytes = size
            self._hints.publish(self._run_id)

    def _look(self) -> None:
        """Renew the lease when that is due, and learn what the user wants."""
        now = time.monotonic()
        if now >= self._heartbeat_due:
            self._heartbeat_due = now + HEARTBEAT_S
            self._see(self._patiently(self._renew))
            self._keep_house()
        elif now >= self._look_due:
            self._see(self._patiently(self._read_orders))
        if time.monotonic() - self._renewed_at > LEASE_GIVEN_UP_S:
            raise LostLeaseError(f"the database could not be reached for {LEASE_GIVEN_UP_S:.0f} s")

    def _keep_house(self) -> None:
        """What is done at every heartbeat besides it."""
        self._patiently(lambda: prune_checkpoints(self._database, self._run_dir, self._run_id))
        if self._members:
            self._patiently(self._members.look)

    def _listen(self) -> None:
        """Hold the lease and hear how the members are."""
        self._look()
        if self._members:
            self._patiently(self._members.look)

    def _see(self, seen: Orders | None) -> None:
        self._look_due = time.monotonic() + LOOK_S
        if seen is not None:
            self._orders = seen

    def _renew(self) -> Orders:
        with self._database.write() as session:
            seen = heartbeat(session, self._run_id, self._fence, node=self._node)
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

    def _conclude(self, returncode: int | None) -> int:
        """Release the run. The leader of a gang that broke first waits for the accounts of its members."""
        has_lost_node = False
        if self._members and returncode:
            has_lost_node = not self._members.wait(self._listen)
            returncode = self._members.exit_code or returncode
        state = self._persistently(
            lambda: conclude(
                self._database,
                self._settings,
                self._run_id,
                self._fence,
                actor="supervisor",
                returncode=returncode,
                is_drained=self._is_drained,
                cause=self._cause,
                has_lost_node=has_lost_node,
            )
        )
        self._hints.publish(self._run_id)
        self._hints.wake(self._worker_id)
        if state is None:
            raise LostLeaseError("the run was taken away")
        logger.info("run %s is %s", self._run_id, state)
        return 0

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


def main(kind: type[Supervisor] = Supervisor) -> int:
    """Carry out what the command line names."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    run_id, fence, node = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    supervisor = kind(get_settings(), run_id, fence, node)
    for number in processes.STOP_SIGNALS:
        signal.signal(number, supervisor.drain)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, processes.STOP_SIGNALS)  # the worker started us with them blocked
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
