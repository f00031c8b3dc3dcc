"""From a point in the trainer's event file to the pixel, with many viewers of the same run.

    CHROMIUM=/usr/bin/chromium python -m benchmarks.web_live --viewers 50

One viewer is a browser with the run's page open, the others are programs that hold the same event stream. A point has
arrived when the chart that draws it says so.
"""

import argparse
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles

import httpx2 as httpx
from playwright.sync_api import Page, sync_playwright

from benchmarks.tables import table
from benchmarks.timing import spread
from benchmarks.web_server import serving
from server.auth import issue_login_code
from server.db.migrate import upgrade
from server.db.runs import Placement, claim
from server.db.session import Database
from server.db.tables import Run
from server.launch.broker import EmbeddedBroker
from server.queue import publish_hint
from server.services import tokens
from server.settings import Settings
from server.stream import MAX_STREAMS
from sparsify_core.config import RunConfig
from sparsify_core.events import AttemptStarted, EventWriter, Metrics, TrainingPlanned
from worker.ingest import ingest

GOAL_MS = "250, 95 % 1000"
CODER = "layers.5"
OBSERVE = """() => {
  const figure = document.getElementById("chart-fvu");
  window.arrivals = [];
  const note = () => window.arrivals.push([Number(figure.dataset.points), Date.now()]);
  new MutationObserver(note).observe(figure, { attributes: true, attributeFilter: ["data-points"] });
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument("--interval_s", type=float, default=1.0)
    args = parser.parse_args()
    with (
        table("From a point to the pixel", ["viewers", "points", "ms", "95 % ms", "goal ms"]) as rows,
        deployment() as (settings, database, url),
    ):
        run = Watched(database, settings)
        with viewers(database, url, run.id, args.viewers - 1), browser(database, url, run.id) as page:
            times = [measure(page, run, step, args.interval_s) for step in range(1, args.points + 1)]
        tail = quantiles(times, n=20)[-1] if len(times) > 1 else times[0]
        rows.add(args.viewers, args.points, spread(times), f"{tail:.0f}", GOAL_MS)


@contextmanager
def deployment() -> Iterator[tuple[Settings, Database, str]]:
    """A server with a broker, on an empty database; yields its address too."""
    with tempfile.TemporaryDirectory() as folder:
        broker = EmbeddedBroker(Path(folder), Path(folder) / "broker.log")
        settings = Settings(data_dir=Path(folder), database_url="", redis_url=broker.url)
        upgrade(settings)
        database = Database(settings)
        broker.child.start()
        try:
            with serving(settings, database) as client:
                yield settings, database, str(client.base_url)
        finally:
            broker.child.stop()
            broker.clean_up()
            database.engine.dispose()


class Watched:
    """A run that trains: writes steps as the trainer does, and brings them in as its supervisor does."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        with database.write() as session:
            config = RunConfig(model="owner/model", dataset="owner/data").model_dump(mode="json")
            run = Run(name="watched", config=config)
            session.add(run)
            session.flush()
            claim(session, run.id, placement=[Placement("w", "host", "", ())], actor="worker")
        self.id = run.id
        self._run_dir = settings.run_dir(run.id)
        self._writer = EventWriter(self._run_dir.events(1), attempt=1)
        self._writer.write(AttemptStarted(resumed_step=0))
        self._writer.write(TrainingPlanned(total_steps=10_000, tokens_per_step=2048, coders=[CODER]))
        self.send(0)

    def send(self, step: int) -> None:
        values = {f"fvu/{CODER}": 0.2 + 1 / (step + 2), f"l0/{CODER}": 32.0, "lr": 1e-3}
        self._writer.write(Metrics(step=step, values=values))
        ingest(self._database, self._run_dir, self.id, attempt=1)
        publish_hint(self._settings.redis_url, self.id)


def measure(page: Page, run: Watched, step: int, interval_s: float) -> float:
    """Milliseconds until the chart has one point more."""
    sent = time.time()
    run.send(step)
    arrived = "wanted => window.arrivals.find(([points]) => points >= wanted)?.[1] ?? 0"
    _wait(lambda: bool(page.evaluate(arrived, step + 1)))
    ms = float(page.evaluate(arrived, step + 1)) - 1e3 * sent
    time.sleep(max(0.0, interval_s - (time.time() - sent)))
    return ms


@contextmanager
def viewers(database: Database, url: str, run_id: str, number: int) -> Iterator[None]:
    """Programs that hold the run's event stream; a login may hold `MAX_STREAMS`."""
    is_over = threading.Event()

    def watch(token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.stream("GET", f"{url}/events?topics=run:{run_id}", headers=headers, timeout=None) as stream:
            for _ in stream.iter_raw():
                if is_over.is_set():
                    return

    secrets: list[str] = []
    with database.write() as session:
        secrets += [tokens.create_token(session, f"viewer {n}")[1] for n in range(-(-number // MAX_STREAMS))]
    for each in range(number):
        threading.Thread(target=watch, args=[secrets[each // MAX_STREAMS]], daemon=True).start()
    yield
    is_over.set()


@contextmanager
def browser(database: Database, url: str, run_id: str) -> Iterator[Page]:
    """The run's page, in Chromium."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with database.write() as session:
        code = issue_login_code(session)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = chromium.new_page(base_url=url)
        page.goto(f"/login#code={code}")
        page.wait_for_url("**/runs")
        page.goto(f"/runs/{run_id}")
        page.locator(".conn[data-state=open]").wait_for(state="attached")
        page.evaluate(OBSERVE)
        yield page
        chromium.close()


def _wait(is_there: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not is_there():
        if time.monotonic() > end:
            raise TimeoutError("waited 60 s in vain")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
