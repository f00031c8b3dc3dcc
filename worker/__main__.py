"""`python -m worker`: serve this host until SIGTERM. Training goes on when the worker stops."""

import logging
import signal
import sys
from types import FrameType

from sqlalchemy.exc import DBAPIError

from server.settings import get_settings
from worker.app import attach, make_app
from worker.host import WorkerIsRunningError
from worker.tasks import host_worker


def _exit(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        host = host_worker()
    except WorkerIsRunningError as error:
        sys.stderr.write(f"worker: {error}\n")
        return 1
    except DBAPIError as error:
        sys.stderr.write(
            f"worker: the database is not ready ({error.orig}): is it up, and was `sparseboard migrate` run?\n"
        )
        return 1
    signal.signal(signal.SIGTERM, _exit)  # until Celery, once it has started, puts its own handler there
    ticker = attach(host, get_settings())
    app = make_app(get_settings())
    try:
        app.worker_main(["worker", "--pool=solo", "--without-gossip", "--without-mingle", "--without-heartbeat"])
    finally:
        ticker.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
