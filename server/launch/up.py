"""`sparseboard up` and `sparseboard worker`: start, look after, stop."""

import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from server.db.session import Database
from server.launch.child import Child
from server.launch.drain import drain
from server.launch.errors import LaunchError
from server.launch.lock import DataFolderLock
from server.launch.network import browser_url, check_host, pick_port
from server.launch.prepare import check_space, migrate
from server.launch.stop import StoppedError, StopRequest
from server.launch.tree import POLL_S, Tree, end_left_behind, worker_child
from server.services.sessions import issue_login_code
from server.settings import Settings

if TYPE_CHECKING:  # what the demo needs is imported only for it: a daily start is quicker
    from server.launch.demo import DemoProgress


@dataclass(frozen=True)
class UpOptions:
    """What `sparseboard up` was asked for, besides the settings."""

    demo: bool = False
    with_worker: bool = True
    is_behind_proxy: bool = False


def up(settings: Settings, options: UpOptions) -> int:
    """Run until Ctrl-C, SIGTERM, or something that keeps dying. Returns the exit status; raises LaunchError."""
    stop = StopRequest()
    stop.listen()
    check_host(settings.host, is_behind_proxy=options.is_behind_proxy)
    lock = DataFolderLock(settings.data_dir)
    try:
        end_left_behind(lock.left_behind)
        lock.write(url="", children=[])
        check_space(settings.data_dir)
        port = pick_port(settings.host, settings.port)
        settings = settings.model_copy(update={"port": port})
        migrate(settings)
        if options.demo:
            from server.launch.demo import prepare_demo

            prepare_demo(settings, stop)
        _serve(settings, options, lock, stop)
    except StoppedError:
        _say("stopped")
    finally:
        lock.release()
    return 0


def _serve(settings: Settings, options: UpOptions, lock: DataFolderLock, stop: StopRequest) -> None:
    url = browser_url(settings.host, settings.port)
    database = Database(settings)
    tree = Tree(settings, url=url, with_worker=options.with_worker)
    try:
        tree.start(stop)
        progress = _start_demo(database, settings, tree, url=url) if options.demo else None
        lock.write(url=url, children=tree.describe())
        link = login_url(database, settings.public_url or url)
        _say(f"Sparseboard is ready. Open this link, it logs you in once:\n\n  {link}\n")
        _say(f"data folder: {settings.data_dir}   (Ctrl-C stops everything)")
        _look_after(tree, lock, stop, url=url, progress=progress)
    finally:
        tree.stop(stop, _say)
        database.engine.dispose()


def _start_demo(database: Database, settings: Settings, tree: Tree, *, url: str) -> "DemoProgress":
    from server.launch.demo import DemoProgress, queue_demo

    run_id = queue_demo(database, settings.model_copy(update={"redis_url": tree.broker_url}))
    return DemoProgress(database, run_id, url=url)


def _look_after(
    tree: Tree, lock: DataFolderLock, stop: StopRequest, *, url: str, progress: "DemoProgress | None"
) -> None:
    show_at = 0.0
    while True:
        stop.check()
        for name in tree.look_after():
            _say(f"the {name} had ended and was started again")
            lock.write(url=url, children=tree.describe())
        if progress and time.monotonic() >= show_at:
            progress.show()
            show_at = time.monotonic() + 1.0
        time.sleep(POLL_S)


def serve_worker(settings: Settings) -> int:
    """A worker alone, for further hosts and for compose; runs go back to the queue when it is stopped."""
    if not settings.redis_url:
        raise LaunchError("REDIS_URL is not set: a worker alone needs the address of the broker that the server uses")
    stop = StopRequest()
    stop.listen()
    environment = os.environ | {
        "SPARSEBOARD_DATA_DIR": str(settings.data_dir),
        "SPARSEBOARD_WORKER_NAME": settings.worker_name,
        "SPARSEBOARD_WORKER_LABELS": json.dumps(settings.worker_labels),
    }
    child: Child = worker_child(None, environment)
    child.start()
    _say("the worker runs (Ctrl-C stops it; its runs go back to the queue)")
    try:
        while True:
            stop.check()
            if child.look_after():
                _say("the worker had ended and was started again")
            time.sleep(POLL_S)
    except StoppedError:
        _say("stopping")
    finally:
        child.stop()
        drain(settings, _say, stop.is_impatient)
    return 0


def login_url(database: Database, url: str) -> str:
    """A link that logs in once. The code stands behind `#`: browsers send that part to no server and no proxy log."""
    with database.write() as session:
        code = issue_login_code(session)
    return f"{url}/login#code={code}"


def _say(sentence: str) -> None:
    print(sentence, flush=True)
