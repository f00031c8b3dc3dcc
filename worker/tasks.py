"""The task. It carries no facts, returns within about a second, and may be lost or doubled."""

from functools import lru_cache

from celery import shared_task

from server.queue import CLAIM_TASK
from server.settings import get_settings
from worker.host import HostWorker


@lru_cache(maxsize=1)
def host_worker() -> HostWorker:
    """The worker of this process."""
    return HostWorker(get_settings())


@shared_task(name=CLAIM_TASK, ignore_result=True)  # type: ignore[untyped-decorator]
def claim() -> None:
    """Start the queued runs that fit."""
    worker = host_worker()
    worker.consumed()
    worker.look()
