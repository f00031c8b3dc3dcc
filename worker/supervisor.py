"""`python -m worker.supervisor RUN_ID FENCE NODE`: carries out one attempt at a run, from the claim to its end.

One process per run, detached from the worker that started it: it holds the lease, starts torchrun, reads its events
into the database, and stops the whole process tree. Training never waits for the database or the broker; if the lease
cannot be renewed for most of its time, the supervisor ends its own training before another worker may take the run.
A run on several nodes has one of them on each: `worker.leader` and `worker.member`.
"""

import json
import logging
import os
import shutil
import signal
import sys
import time
from types import FrameType

from server.db.runs import note_processes, quarantine
from server.db.tables import AttemptNode, Intent, ProcessIdentity, Run
from server.settings import Settings, get_settings
from sparsify_core.events import AttemptFinished
from worker import processes
from worker.ending import conclude, start_failure
from worker.hints import Hints
from worker.holder import Holder, LostLeaseError
from worker.ingest import ingest, prune_checkpoints
from worker.inherit import ancestors_of, inherit_checkpoints
from worker.orphans import UNKILLABLE
from worker.rendezvous import Rendezvous, own_address
from worker.sealing import Sealer, seal_rest
from worker.trainer import Trainer, trainer_config
from worker.watchdog import Watchdog

logger = logging.getLogger(__name__)

POLL_S = 0.25
GRACE_S = 60.0
"""How long a trainer may take to save when its run is paused or queued again; then it is killed."""
CANCEL_GRACE_S = 6.0
"""The same for a cancelled one: cancelling takes at most ten seconds."""
DRAIN_GRACE_S = 20.0
"""The same when the host stops."""
KILL_GRACE_S = 30.0
"""How long a killed process may hang in the kernel before its devices are quarantined."""


class _StoppedError(Exception):
    """The attempt is to stop before it trains."""


class Supervisor(Holder):
    """Carries out attempt `fence` of a run, or one of its nodes."""

    def __init__(self, settings: Settings, run_id: str, fence: int, node: int = 0) -> None:
        super().__init__(settings, run_id, fence, node)
        self._hints = Hints(settings.redis_url)
        self._run_dir = settings.run_dir(run_id)
        self._worker_id = ""
        self._is_drained = False
        self._event_bytes = 0
        self._sealer = Sealer(self._database, run_id)
        self._family: list[ProcessIdentity] = []
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
                self._persistently(lambda: self._quarantine(trainer.family))
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
            rendezvous = self._meet(nodes) if len(nodes) > 1 else None
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
        except _StoppedError:
            return None
        except OSError as error:
            logger.error("training could not be started: %s", error)
            self._cause = start_failure(error)
            return None

    def _meet(self, nodes: list[AttemptNode]) -> Rendezvous:
        """Where the nodes of a run on several meet."""
        raise NotImplementedError

    def _rendezvous(self, endpoint: str, nodes: list[AttemptNode]) -> Rendezvous:
        address = own_address(self._settings.worker_address, [node.host for node in nodes])
        name = f"{self._run_id}-{self._fence}"
        return Rendezvous(endpoint, name, num_nodes=len(nodes), address=address, is_host=self._node == 0)

    def _prepare(self, run: Run) -> None:
        """Write what the trainer reads, clear away what killed attempts left, and take over what it goes on from."""
        self._run_dir.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._run_dir.config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(trainer_config(run.config, self._settings.activations_dir), file)
        for leftover in self._run_dir.unpublished():
            self._go_on()
            shutil.rmtree(leftover.root, ignore_errors=True)
        ancestors = self._persistently(lambda: ancestors_of(self._database, run))
        saved = [self._settings.run_dir(run_id) for run_id in ancestors]
        inherit_checkpoints(saved, self._run_dir, meanwhile=self._go_on)

    def _go_on(self) -> None:
        """Hold the lease during what comes before training. Raises _StoppedError when the attempt is to stop."""
        if self._hear():
            raise _StoppedError

    def _hear(self) -> bool:
        """Hold the lease, and tell when the host stops. Returns whether training is to stop."""
        self._look()
        if self._is_drained and not self._orders.is_to_stop:
            self._see(self._patiently(self._announce_drain))
        return self._orders.is_to_stop or self._is_drained

    def _watch(self, trainer: Trainer) -> None:
        """Until training has ended: read its events, renew the lease, pass on what the user wants."""
        while trainer.returncode is None:
            trainer.look_after()
            self._note_family(trainer)
            self._seal(self._ingest())
            is_to_stop = self._hear()
            if self._is_broken() and not is_to_stop:
                logger.warning("a node broke and training did not end by itself: it is killed")
                trainer.kill()
            if is_to_stop:
                trainer.ask_to_stop()
                if trainer.has_overrun(self._grace_s()):
                    logger.warning("the trainer did not stop in time and is killed")
                    trainer.kill()
            else:
                self._end_if_stalled(trainer)
            time.sleep(POLL_S)

    def _note_family(self, trainer: Trainer) -> None:
        """For whoever has to end what this supervisor leaves behind."""

        def note() -> list[ProcessIdentity]:
            with self._database.write() as session:
                note_processes(session, self._run_id, self._fence, self._node, trainer.family)
            return trainer.family

        if trainer.family != self._family:
            self._family = self._patiently(note) or self._family

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

    def _quarantine(self, survivors: list[ProcessIdentity]) -> None:
        with self._database.write() as session:
            quarantine(
                session,
                self._run_id,
                self._fence,
                node=self._node,
                actor="supervisor",
                reason=UNKILLABLE,
                processes=survivors,
            )

    def _is_broken(self) -> bool:
        """Whether another node broke, and this one does not notice."""
        return False

    def _account(self, returncode: int | None) -> tuple[int | None, bool]:
        """The exit status that counts, and whether another node vanished."""
        return returncode, False

    def _grace_s(self) -> float:
        if self._orders.intent == Intent.CANCEL:
            return CANCEL_GRACE_S
        return DRAIN_GRACE_S if self._is_drained else GRACE_S

    def _ingest(self) -> int:
        """Returns how many events were new."""
        try:
            size = self._run_dir.events(self._fence).stat().st_size
        except FileNotFoundError:
            return 0
        if size == self._event_bytes:
            return 0
        found = self._patiently(lambda: ingest(self._database, self._run_dir, self._run_id, self._fence))
        if found is not None:
            self._event_bytes = size
            self._hints.publish(self._run_id)
        return found or 0

    def _seal(self, num_events: int) -> None:
        self._patiently(lambda: self._sealer.go_on(num_events))

    def _keep_house(self) -> None:
        self._patiently(lambda: prune_checkpoints(self._database, self._run_dir, self._run_id))

    def _conclude(self, returncode: int | None) -> int:
        """Release the run."""
        returncode, has_lost_node = self._account(returncode)
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
        self._patiently(lambda: seal_rest(self._database, self._run_id))
        return 0


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
