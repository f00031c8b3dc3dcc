"""A training from end to end: in a temporary folder, with a broker, server and worker of its own."""

import tempfile
import time
from pathlib import Path

from server.db.session import Database
from server.db.tables import ACTIVE, Run, RunState
from server.doctor.finding import Finding, fail, ok
from server.doctor.machine import ProbeError, probe
from server.launch.errors import LaunchError
from server.launch.network import browser_url, pick_port
from server.launch.prepare import migrate
from server.launch.stop import StoppedError, StopRequest
from server.launch.tree import Tree
from server.services.requests import RunRequest
from server.services.runs import create_run
from server.settings import Settings
from sparsify_core.errors import CheckpointError
from sparsify_core.manifest import verify_checkpoint

_TIMEOUT_S = 180.0
_UNDER_WAY = (RunState.QUEUED, *ACTIVE)
_STEPS = 20
_CONFIG = {
    "hookpoints": ["layers.0"],
    "sae": {"expansion_factor": 4, "k": 8},
    "ctx_len": 32,
    "batch_size": 4,
    "max_tokens": 32 * 4 * _STEPS,
    "eval_tokens": 512,
    "optimizer": "adam",
    "lr_warmup_steps": 1,
    "compile_model": "off",
}


def training(_settings: Settings) -> Finding:
    """Queue a run of a tiny random model and follow it to its checkpoint: half a minute. Nothing is left behind."""
    stop = StopRequest()
    stop.listen()
    with tempfile.TemporaryDirectory(prefix="sparseboard-doctor-") as folder:
        try:
            sources = probe("-m", "sparsify_core.probe", "tiny", folder)
            return _train(Path(folder), sources, stop)
        except ProbeError as error:
            return fail(f"a tiny model cannot be made: {error}", "run `make setup`")
        except LaunchError as error:
            return fail(str(error), "run `make setup`, and look at what the other checks found")
        except StoppedError:
            return fail("it was stopped", "run it again")


def _train(folder: Path, sources: dict[str, str], stop: StopRequest) -> Finding:
    host = "127.0.0.1"
    settings = Settings(
        data_dir=folder / "data",
        database_url="",
        redis_url="",
        host=host,
        port=pick_port(host, 0),
        source_roots=[folder],
    )
    settings.data_dir.mkdir()
    migrate(settings)
    database = Database(settings)
    tree = Tree(settings, url=browser_url(host, settings.port), with_worker=True)
    started_at = time.monotonic()
    try:
        tree.start(stop)
        request = RunRequest.model_validate({"name": "doctor", "config": sources | _CONFIG})
        with database.write() as session:
            queued = settings.model_copy(update={"redis_url": tree.broker_url})
            run_id = create_run(session, request, settings=queued, actor="doctor").id
        run = _follow(database, tree, run_id, stop)
        return _judge(settings, run, time.monotonic() - started_at)
    finally:
        tree.stop(stop, lambda _: None)
        database.engine.dispose()


def _follow(database: Database, tree: Tree, run_id: str, stop: StopRequest) -> Run:
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        stop.check()
        tree.look_after()
        with database.read() as session:
            run = session.get_one(Run, run_id)
        if run.state not in _UNDER_WAY or time.monotonic() > deadline:
            return run
        time.sleep(0.25)


def _judge(settings: Settings, run: Run, seconds: float) -> Finding:
    if run.state in _UNDER_WAY:
        return fail(
            f"after {seconds:.0f} s the run is still {run.phase or run.state}", "look at the load of the machine"
        )
    if run.state != RunState.COMPLETED:
        return fail(f"the run is {run.state}: {run.message}", _last_line(run.log_tail))
    published = settings.run_dir(run.id).published()
    try:
        verify_checkpoint(published[-1])
    except (CheckpointError, IndexError) as error:
        return fail(f"its checkpoint is not intact: {error}", "look at the disk")
    return ok(f"{run.step} steps through queue, worker and torchrun in {seconds:.0f} s, with an intact checkpoint")


def _last_line(log: str) -> str:
    lines = log.strip().splitlines()
    return f"the log ends with: {lines[-1].strip()}" if lines else "it wrote no log"
