"""A worker is woken by what is meant for it, and by nothing else."""

import threading

from services import wait_until
from worker.hints import Hints
from worker.wakes import WakeListener


def test_a_wake_up_reaches_the_worker_that_it_names(broker_url: str) -> None:
    woken = {name: threading.Event() for name in ("me", "another")}
    listeners = [WakeListener(broker_url, name, woken[name].set) for name in woken]
    for listener in listeners:
        listener.start()
    hints = Hints(broker_url)

    def wakes() -> bool:  # again, for a message to a channel that nobody listens to yet is lost
        hints.wake("me")
        return woken["me"].is_set()

    wait_until(wakes, timeout_s=10, what="the wake-up")
    assert not woken["another"].is_set()
    for listener in listeners:
        listener.stop()
        listener.join(timeout=10)
        assert not listener.is_alive()


def test_without_a_broker_nobody_listens() -> None:
    listener = WakeListener("", "me", lambda: None)
    listener.start()
    listener.join(timeout=10)
    assert not listener.is_alive()
