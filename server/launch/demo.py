"""The demo of `sparseboard up --demo`: its data, its run, and its progress in the terminal."""

import subprocess
import sys
import time

from sqlmodel import col, select

from server.db.session import Database
from server.db.tables import TERMINAL, Run, RunState
from server.launch.errors import LaunchError
from server.launch.stop import StopRequest
from server.numbers import metric, percent
from server.services.presets import demo_config
from server.services.requests import RunRequest
from server.services.runs import create_run
from server.settings import Settings

DEMO_NAME = "demo: SmolLM2-135M, layer 5"
_LINE_EVERY_S = 10.0
"""Without a terminal that can rewrite a line."""


def prepare_demo(settings: Settings, stop: StopRequest) -> None:
    """Make the demo's model and text in a process of its own, which says how far it is. Raises LaunchError."""
    command = [sys.executable, "-m", "sparsify_core.demo", str(settings.demo_dir)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while process.poll() is None:
            stop.check()
            time.sleep(0.1)
    finally:
        process.kill()
        _, errors = process.communicate()
    if process.returncode != 0:
        words = errors.strip().splitlines()
        raise LaunchError(words[-1] if words else "demo: the demo data could not be made")


def queue_demo(database: Database, settings: Settings) -> str:
    """The id of the demo run: the newest one that is worth showing, or a new one."""
    with database.write() as session:
        present = session.exec(
            select(Run)
            .where(Run.name == DEMO_NAME, col(Run.state).not_in((RunState.FAILED, RunState.CANCELLED)))
            .order_by(col(Run.created_at).desc())
        ).first()
        if present is not None:
            return present.id
        request = RunRequest.model_validate({"name": DEMO_NAME, "config": demo_config(settings)})
        return create_run(session, request, settings=settings, actor="sparseboard up --demo").id


class DemoProgress:
    """Follows the demo run until it ends; at most a line every few seconds, or one line that is rewritten."""

    def __init__(self, database: Database, run_id: str, *, url: str) -> None:
        self._database = database
        self._run_id = run_id
        self._url = f"{url}/runs/{run_id}"
        self._rewrites = sys.stdout.isatty()
        self._last_line = ""
        self._last_at = 0.0
        self.is_over = False

    def show(self) -> None:
        """Look once."""
        if self.is_over:
            return
        with self._database.read() as session:
            run = session.get(Run, self._run_id)
        if run is None:  # deleted in the browser
            self.is_over = True
            return
        if run.state in TERMINAL:
            self.is_over = True
            self._end_line()
            print(f"demo run {outcome(run)}\n  {self._url}", flush=True)
            return
        self._print(progress(run))

    def _print(self, line: str) -> None:
        now = time.monotonic()
        if line == self._last_line or (not self._rewrites and now - self._last_at < _LINE_EVERY_S):
            return
        if self._rewrites:
            print(f"\r\x1b[K{line}", end="", flush=True)
        else:
            print(line, flush=True)
        self._last_line, self._last_at = line, now

    def _end_line(self) -> None:
        if self._rewrites and self._last_line:
            print()


def progress(run: Run) -> str:
    """`step 37/200  FVU 0.3104  dead 0.41%  1,770 tok/s  ETA 2m05s`, or what the run does before it trains."""
    if not run.step or not run.total_steps:
        return f"demo run: {run.phase or run.state}"
    rate = _number(run, "tokens_per_s")
    parts = [f"demo run: step {run.step}/{run.total_steps}"]
    fvu, dead = _number(run, "fvu"), _number(run, "dead_frac")
    if fvu is not None:
        parts.append(f"FVU {metric(fvu, 'ratio')}")
    if dead is not None:
        parts.append(f"dead {percent(dead)}")
    if rate:
        seconds = round((run.total_steps - run.step) * run.tokens_per_step / rate)
        parts += [f"{rate:,.0f} tok/s", f"ETA {seconds // 60}m{seconds % 60:02}s"]
    if run.phase not in ("", "training"):
        parts.append(run.phase)
    return "  ".join(parts)


def outcome(run: Run) -> str:
    """How the run ended, for the last line."""
    fvu = _number(run, "eval_fvu")
    if run.state == RunState.COMPLETED and fvu is not None:
        return f"completed: held-out FVU {metric(fvu, 'ratio')}"
    return f"{run.state}: {run.message}" if run.message else run.state


def _number(run: Run, metric: str) -> float | None:
    """Newest value of a metric, of the first coder that has it."""
    values = (value for key, value in run.latest.items() if key.partition("/")[0] == metric)
    value = next(values, None)
    return float(value) if isinstance(value, int | float) else None
