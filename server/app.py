"""The application: `create_app` builds it, `uvicorn --factory server.app:create_app` runs it."""

import asyncio
import contextlib
import gc
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse
from fastapi.routing import APIRoute
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader
from starlette.middleware.gzip import GZipMiddleware

from server import api, errors, pages, probes, stream, telemetry
from server.api.description import complete
from server.auth import Guard
from server.db.session import Database
from server.db.trouble import TROUBLE
from server.hints import closed_by_signals, watch
from server.middleware import Envelope
from server.notices.notifier import Notifier
from server.pages.templating import install
from server.services import hub
from server.services.diagnosis import Diagnoses
from server.services.looks import Looks
from server.settings import Settings, get_settings
from server.static_files import StaticFolder

logger = logging.getLogger(__name__)

_RETRY_S = 5.0
_WEB = Path(__file__).resolve().parents[1] / "web"
VERSION = "0.1.0"


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The description of the REST API."""
        return complete(super().openapi())


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application for `settings`, or for the environment's."""
    app = _Application(
        title="Sparseboard",
        version=VERSION,
        lifespan=_lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    app.state.settings = settings or get_settings()
    app.state.failed_logins = deque[float]()
    app.state.no_touch_until = 0.0
    app.state.open_streams = Counter[str]()
    app.state.diagnoses = Diagnoses()
    app.state.templates = _templates()
    app.state.telemetry = telemetry.Telemetry(app.state)
    errors.install(app)
    app.add_middleware(Guard)
    app.add_middleware(Envelope, allowed_hosts=app.state.settings.allowed_hosts, observe=app.state.telemetry.observe)
    app.include_router(api.router, prefix="/api/v1")
    for part in (stream, pages, probes, telemetry):
        app.include_router(part.router)
    _add_plain_routes(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    app.state.db = Database(settings)
    cleaning = asyncio.create_task(_clean_up(app.state.db, time.time()))
    notifier = Notifier(app.state.db, settings, app.state.diagnoses)
    notifier.start()
    # What is there stays: a request for long series makes so many objects that searching all of them for garbage, over
    # and over, would take a third of its time.
    gc.freeze()
    async with watch(settings.redis_url) as app.state.hints:
        app.state.looks = Looks(app.state.db, app.state.hints)
        with closed_by_signals(app.state.hints):
            yield
    gc.unfreeze()
    await run_in_threadpool(notifier.stop)
    cleaning.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await cleaning
    app.state.db.engine.dispose()


async def _clean_up(database: Database, started_at: float) -> None:
    """As soon as the database answers: a server that starts before it does says 503 until then."""
    while True:
        try:
            await run_in_threadpool(_fail_interrupted, database, started_at)
        except TROUBLE as error:
            logger.warning("the database does not answer yet: %s", error)
            await asyncio.sleep(_RETRY_S)
        else:
            return


def _fail_interrupted(database: Database, started_at: float) -> None:
    with database.write() as session:
        hub.fail_interrupted(session, started_at)


def _operation_id(route: APIRoute) -> str:
    return f"{route.tags[0]}-{route.name}" if route.tags else route.name


def _templates() -> Jinja2Templates:
    """Everything is escaped, whatever the file's name ends with."""
    environment = Environment(loader=FileSystemLoader(_WEB / "templates"), autoescape=True, auto_reload=False)
    install(environment)
    return Jinja2Templates(env=environment)


def _add_plain_routes(app: FastAPI) -> None:
    # Compressed are the files alone: pages hold secrets, whose compressed lengths would tell something of them.
    files = StaticFolder(_WEB / "static")
    app.mount("/static", GZipMiddleware(files), name="static")
    app.state.templates.env.globals |= {"static": f"/static/{files.prefix}", "module": files.module}

    @app.get("/favicon.ico", include_in_schema=False)
    async def favicon() -> FileResponse:
        return FileResponse(_WEB / "static" / "img" / "logo.svg", media_type="image/svg+xml")

    @app.get("/api/v1/openapi.json", include_in_schema=False)
    def openapi() -> JSONResponse:
        return JSONResponse(app.openapi())
