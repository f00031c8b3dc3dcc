"""The web server dies while browsers watch: they find it again, and see every point once."""

import threading
import time

import httpx2 as httpx
import pytest

from deployment import STEPS, Deployment
from event_stream import parse
from server.db.tables import RunState
from services import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.long]

WATCHERS = 40


class Watcher(threading.Thread):
    """A tab: follows a run, and reconnects behind the last event that it has seen."""

    def __init__(self, client: httpx.Client, run_id: str) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._run_id = run_id
        self.steps: list[int] = []
        self.connections = 0
        self.is_over = threading.Event()

    def run(self) -> None:
        cursor = "0.0"
        while not self.is_over.is_set():
            try:
                headers = {"Last-Event-ID": cursor}
                with self._client.stream("GET", f"/events?topics=run:{self._run_id}", headers=headers) as answer:
                    self.connections += answer.status_code == 200
                    for event in parse(answer.iter_lines()):
                        cursor = event.id or cursor
                        if event.name == "metrics":
                            self.steps += [point[1] for point in event.data["points"] if point[0] == "lr"]
                        if event.name == "run" and event.data["state"] == RunState.COMPLETED:
                            self.is_over.set()
                            break
            except httpx.TransportError:
                time.sleep(0.2)


def test_watchers_of_a_killed_server_miss_nothing_and_see_nothing_twice(deployment: Deployment) -> None:
    run_id = deployment.submit(plans={1: {12: ["hold"]}})
    deployment.wait_held(run_id)
    clients = [deployment.new_client() for _ in range(WATCHERS)]
    for number, client in enumerate(clients):
        if number % 8 == 0:
            token = deployment.new_token()
        client.headers["Authorization"] = f"Bearer {token}"
    watchers = [Watcher(client, run_id) for client in clients]
    for watcher in watchers:
        watcher.start()
    wait_until(lambda: all(len(w.steps) == 11 for w in watchers), timeout_s=60, what="all tabs to see the first steps")
    deployment.kill_server()
    deployment.go(run_id)
    time.sleep(1)
    deployment.start_server()
    deployment.wait_end(run_id)
    wait_until(lambda: all(w.is_over.is_set() for w in watchers), timeout_s=60, what="all tabs to see the end")
    assert [watcher.steps for watcher in watchers] == [list(range(1, STEPS + 1))] * WATCHERS
    assert all(watcher.connections >= 2 for watcher in watchers)
    for client in clients:
        client.close()
