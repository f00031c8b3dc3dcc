"""The product as a user meets it: `sparseboard up`, a login link, the form, a real training run, its checkpoint."""

import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import psutil
import pytest

from services import wait_until

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from browser import chromium_or_skip  # noqa: E402

pytestmark = [pytest.mark.e2e, pytest.mark.integration]


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_text: Path) -> Iterator[tuple[str, Path]]:
    """A running Sparseboard with an empty data folder; yields the login link and the data folder."""
    data_dir = tmp_path_factory.mktemp("product")
    env = os.environ | {
        "SPARSEBOARD_DATA_DIR": str(data_dir),
        "SPARSEBOARD_SOURCE_ROOTS": f'["{tiny_model.parent}", "{tiny_text.parent}"]',
        "PYTHONUNBUFFERED": "1",
    }
    for name in ("DATABASE_URL", "REDIS_URL", "HF_TOKEN"):
        env.pop(name, None)
    log = data_dir / "up.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "server.cli", "up", "--port", "0"], env=env, stdout=output, stderr=output
        )
    try:
        link = wait_until(
            lambda: re.search(r"http://\S+/login#code=\S+", log.read_text()), timeout_s=60, what="the login link"
        )
        yield link.group(0), data_dir
    finally:
        tree = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        wait_until(lambda: not any(psutil.pid_exists(pid) for pid in tree), timeout_s=10, what="every process to end")


@pytest.fixture(scope="module")
def page(product: tuple[str, Path]) -> Iterator["playwright_api.Page"]:
    """A logged-in page that collects console errors."""
    with playwright_api.sync_playwright() as playwright:
        browser = chromium_or_skip(playwright)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(product[0])
        page.wait_for_url("**/runs*")
        assert "code=" not in page.url
        page.get_by_role("button", name="Skip", exact=True).click()  # the tour of who is here for the first time
        yield page
        assert problems == []
        browser.close()


def submit(page: "playwright_api.Page", **fields: str) -> None:
    """Fill in the form of a new run and send it."""
    page.goto(urljoin(page.url, "/runs/new?preset=blank"))
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    for name, value in fields.items():
        control = page.locator(f'[name="{name.replace("__", ".")}"]:not([type=hidden])')
        if control.evaluate("e => e.tagName") == "SELECT":
            control.select_option(value)
        else:
            control.fill(value)
    page.get_by_role("button", name="Queue run").click()


def tiny_run(model: Path, text: Path, **more: str) -> dict[str, str]:
    return {
        "config__model": str(model),
        "config__dataset": str(text),
        "config__hookpoints": "layers.0",
        "config__ctx_len": "32",
        "config__batch_size": "4",
        "config__sae__k": "4",
        "config__sae__expansion_factor": "8",
        "config__optimizer": "adam",
        "config__lr_warmup_steps": "5",
        "config__save_every": "50",
        "config__eval_tokens": "512",
        **more,
    }


def test_a_run_goes_from_the_form_to_a_downloaded_checkpoint(
    page: "playwright_api.Page", tiny_model: Path, tiny_text: Path
) -> None:
    submit(page, **tiny_run(tiny_model, tiny_text, name="first light"))
    page.wait_for_url(re.compile(r"/runs/[0-9a-z]{26}$"))
    run_url = page.url
    # Nothing is reloaded from here on: states, charts and lists must arrive by themselves.
    page.evaluate("window.sameDocument = true")
    page.locator("#head").get_by_text("Completed").wait_for(timeout=300_000)
    assert page.evaluate("window.sameDocument") is True
    page.locator("#chart-fvu canvas").wait_for()
    rows = page.locator("#chart-fvu .summary tbody tr")
    live = rows.all_text_contents()
    assert any("held out" in row for row in live)

    page.reload()
    page.locator("#chart-fvu canvas").wait_for()
    wait_until(lambda: rows.all_text_contents() == live, timeout_s=10, what="the reloaded chart to equal the live one")

    page.locator("#lists a[href^='/checkpoints/']").first.click()
    page.wait_for_url("**/checkpoints/*")
    page.get_by_text("Feature density").wait_for()
    checkpoint_url = page.url
    with page.expect_download() as download:
        page.locator("a[href$='/zip']").click()
    names = zipfile.ZipFile(download.value.path()).namelist()
    assert any(name.endswith("layers.0/sae.safetensors") for name in names)

    page.goto(f"{checkpoint_url.split('?')[0]}?coder=layers.0&latent=0")
    page.get_by_role("heading", name="Latent 0").wait_for()
    page.goto(run_url)


def test_an_absurd_learning_rate_is_found_and_cured_by_a_clone(
    page: "playwright_api.Page", tiny_model: Path, tiny_text: Path
) -> None:
    submit(page, **tiny_run(tiny_model, tiny_text, name="far too fast", config__lr="50", config__max_tokens="25600"))
    page.wait_for_url(re.compile(r"/runs/[0-9a-z]{26}$"))
    finding = page.locator("#finding-fvu_stuck")
    finding.wait_for(timeout=240_000)
    assert "50" in finding.locator(".changes").inner_text()
    finding.get_by_role("link", name="Clone with fix").click()
    page.wait_for_url("**/runs/new?from=*&config.lr=*")


def test_a_model_that_cannot_be_loaded_fails_with_the_reason_on_its_page(
    page: "playwright_api.Page", tiny_model: Path, tiny_text: Path
) -> None:
    empty = tiny_model.parent / "not-a-model"
    empty.mkdir(exist_ok=True)
    submit(page, **tiny_run(empty, tiny_text, name="no such model"))
    page.wait_for_url(re.compile(r"/runs/[0-9a-z]{26}$"))
    alert = page.locator("#head [role=alert]")
    alert.wait_for(timeout=300_000)
    assert "config.json" in alert.inner_text()
    assert "model_error" in alert.inner_text()


def test_cancelling_a_run_in_the_browser_ends_every_process(
    page: "playwright_api.Page", tiny_model: Path, tiny_text: Path
) -> None:
    long = tiny_run(tiny_model, tiny_text, name="to be cancelled", config__ctx_len="16", config__batch_size="1")
    submit(page, **long)
    page.wait_for_url(re.compile(r"/runs/[0-9a-z]{26}$"))
    run_id = page.url.rsplit("/", 1)[1]
    page.locator("#head").get_by_text("Running").wait_for(timeout=300_000)
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("button", name="Cancel run").click()
    page.locator("#head").get_by_text("Cancelled", exact=True).wait_for(timeout=15_000)
    wait_until(lambda: not processes_of(run_id), timeout_s=10, what="the run's processes to end")


def processes_of(run_id: str) -> list[psutil.Process]:
    """Processes that carry the run's id in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SPARSEBOARD_RUN_ID") == run_id:
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found
