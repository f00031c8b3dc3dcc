"""How what runs depend on is doing: broker, workers, disk. Read by `/readyz`, `/metrics` and the banners of pages."""

import shutil
import time
from dataclasses import dataclass, field

from sqlmodel import Session

from server.db.tables import Worker
from server.hints import Hints
from server.numbers import duration, size
from server.services.queue_state import queue_state
from server.services.workers import is_alive, list_workers
from server.settings import Settings

DEAF_S = 120.0
"""A worker that ticks but has taken no message for so long has stopped consuming: it sends itself one every 30 s."""
LOW_DISK_BYTES = 1 << 30


@dataclass(frozen=True)
class Symptom:
    """Something that is wrong while the server works. `code` is for programs, `sentence` for people."""

    code: str
    sentence: str
    is_shown: bool = True
    """Whether pages show it as a banner; some say it where it matters."""


@dataclass(frozen=True)
class Health:
    """Ages in seconds; None where there is nothing whose age it could be."""

    broker_age_s: float | None
    tick_age_s: float | None
    """Since the newest tick of any worker."""
    consumer_age_s: float | None
    """Between the newest tick and the newest message of the live worker for which that is longest."""
    disk_free_bytes: int
    symptoms: list[Symptom] = field(default_factory=list)


def examine(session: Session, settings: Settings, hints: Hints) -> Health:
    """Look once; a handful of short queries."""
    now = time.time()
    workers = list_workers(session)
    alive = [worker for worker in workers if is_alive(worker)]
    free = shutil.disk_usage(settings.data_dir).free
    queue = queue_state(session)
    symptoms = []
    if queue.paused:
        symptoms.append(_paused(queue.reason))
    if hints.is_broker_down:
        symptoms.append(BROKER_DOWN)
    elif settings.redis_url:
        deaf = [worker for worker in alive if consumer_age_s(worker) > DEAF_S]
        if len(deaf) == len(alive):  # they share one queue: where one listens, it may have taken the others' messages
            symptoms += [_deaf(worker) for worker in deaf]
    if not alive:
        symptoms.append(NO_WORKER)
    if free < LOW_DISK_BYTES:
        symptoms.append(_low_disk(free))
    return Health(
        broker_age_s=hints.broker_age_s,
        tick_age_s=min((now - worker.seen_at for worker in workers), default=None),
        consumer_age_s=max((consumer_age_s(worker) for worker in alive), default=None) if settings.redis_url else None,
        disk_free_bytes=free,
        symptoms=symptoms,
    )


def consumer_age_s(worker: Worker) -> float:
    """How long before its newest tick a worker took a message from the broker, both by its own clock."""
    return max(0.0, worker.seen_at - (worker.consumed_at or worker.started_at))


QUEUE_PAUSED = "queue_paused"
"""The code of the symptom that a person can end, by resuming the queue."""
BROKER_DOWN = Symptom(
    "broker_down",
    "The queue is degraded: the broker does not answer. Nothing is lost; runs start some seconds later than usual.",
)
NO_WORKER = Symptom("no_worker", "No worker is connected: queued runs wait for one.", is_shown=False)


def _paused(reason: str) -> Symptom:
    why = f": {reason}. Find the cause, then resume it" if reason else ""
    return Symptom(QUEUE_PAUSED, f"The queue is paused, no run starts{why}.")


def _deaf(worker: Worker) -> Symptom:
    return Symptom(
        "consumer_silent",
        f"The queue is degraded: the worker {worker.name} has taken no message for {duration(consumer_age_s(worker))}. "
        "Nothing is lost; restart it to have runs start at once again.",
    )


def _low_disk(free: int) -> Symptom:
    return Symptom(
        "disk_low",
        f"Only {size(free)} are free on the disk of the data folder: runs pause when a checkpoint does not fit.",
    )
