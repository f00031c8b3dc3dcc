"""A server on a seeded database, and logged-in pages that collect every console error and CSP violation."""

import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from planned import SMOLLM2_135M, know_shape

from browser import chromium_or_skip
from seed import seed
from server.app import create_app
from server.db.session import Database
from server.settings import Settings
from services import broker, wait_until
from sparsify_core.config import RunConfig
from sparsify_core.demo import MODEL_NAME, TEXT_NAME
from webpage import OpenPage, Site

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, sqlite_template: bytes) -> Iterator[Site]:
    """The web server alone, on a database with runs in every state."""
    data_dir = tmp_path_factory.mktemp("site") / "data"
    (data_dir / "demo" / MODEL_NAME).mkdir(parents=True)
    (data_dir / "demo" / TEXT_NAME).write_text('{"text": "In the beginning"}\n')
    (data_dir / "sparseboard.db").write_bytes(sqlite_template)
    with broker() as redis_url, socket.create_server(("127.0.0.1", 0)) as listener:
        settings = Settings(data_dir=data_dir, database_url="", redis_url=redis_url, hf_token=None)
        database = Database(settings)
        ids = seed(database, settings)
        for model in (str(settings.demo_dir / MODEL_NAME), RunConfig().model):  # no child process reads them
            know_shape(settings, model, SMOLLM2_135M)
        server = uvicorn.Server(uvicorn.Config(create_app(settings), log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        wait_until(lambda: server.started, timeout_s=20, what="the server to start")
        yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}", settings, database, ids)
        server.should_exit = True
        thread.join(10)
        database.engine.dispose()


@pytest.fixture(scope="module")
def chromium() -> Iterator["playwright_api.Browser"]:
    with playwright_api.sync_playwright() as playwright:
        browser = chromium_or_skip(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def cookies(site: Site, chromium: "playwright_api.Browser") -> list[dict[str, object]]:
    """The cookies of a logged-in browser, from one login through the link with the code."""
    context = chromium.new_context(base_url=site.url)
    page = context.new_page()
    page.goto(site.login_path())
    page.wait_for_url("**/runs")
    found = context.cookies()
    context.close()
    return found


@pytest.fixture
def open_page(site: Site, chromium: "playwright_api.Browser", cookies: list[dict[str, object]]) -> Iterator[OpenPage]:
    """Open a path in a fresh logged-in context; at the end there must have been no error on any console."""
    problems: list[str] = []
    contexts = []

    def open_path(
        path: str, *, width: int = 1440, theme: str = "light", script: bool = True, anonymous: bool = False
    ) -> "playwright_api.Page":
        context = chromium.new_context(
            base_url=site.url,
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            java_script_enabled=script,
            reduced_motion="reduce",
        )
        contexts.append(context)
        if not anonymous:
            context.add_cookies(cookies)
        page = context.new_page()
        page.on("console", lambda m: problems.append(f"{path}: {m.text}") if _is_problem(m) else None)
        page.on("pageerror", lambda error: problems.append(f"{path}: {error}"))
        page.goto(path)
        return page

    yield open_path
    for context in contexts:
        context.close()
    assert problems == []


def _is_problem(message: "playwright_api.ConsoleMessage") -> bool:
    """Answers 409 and 422 are logged by the browser too, and are what refused forms should get."""
    is_refusal = "status of 422" in message.text or "status of 409" in message.text
    return message.type in ("error", "warning") and not is_refusal
