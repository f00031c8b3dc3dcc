"""`/runs/new` as addresses fill it in."""

import re

from fastapi import FastAPI
from fastapi.testclient import TestClient

from rows import add_run


def words(page: str) -> str:
    """What a page says."""
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_the_address_changes_fields_of_a_run_and_says_so(sqlite_app: FastAPI, browser: TestClient) -> None:
    with sqlite_app.state.db.write() as session:
        run_id = add_run(session).id
    page = browser.get(f"/runs/new?from={run_id}&config.sae.k=64&config.optimizer=adam&config.evil=1").text
    assert re.search(r'name="config.sae.k" value="64"', page)
    assert "Changed from the run" in page
    text = words(page)
    assert "k 32 → 64" in text
    assert "optimizer signum → adam" in text
    assert "evil" not in page
    assert "Changed from" not in browser.get(f"/runs/new?from={run_id}").text


def test_the_full_view_opens_every_group(browser: TestClient) -> None:
    assert '<details class="more" open>' not in browser.get("/runs/new?preset=blank").text
    page = browser.get("/runs/new?preset=blank&view=full").text
    assert page.count('<details class="more" open>') == page.count('<details class="more"') > 5
