"""The two tasks. They carry no facts, return within about a second, and may be lost or doubled."""

from functools import lru_cache

from celery import shared_task

from server.queue import CLAIM_TASK, TICK_TASK
from server.settings import get_settings
from worker.host import HostWorker


@lru_cache(maxsize=1)
def host_worker() -> HostWorker:
    """The worker of this process."""
    return HostWorker(get_settings())


@shared_task(name=CLAIM_TASK, ignore_result=True)  # type: ignore[untyped-decorator]
def claim() -> None:
    """Start the queued runs that fit."""
    host_worker().look()


@shared_task(name=TICK_TASK, ignore_result=True)  # type: ignore[untyped-decorator]
def tick() -> None:
    """What the timer does, on request."""
    host_worker().tick()
