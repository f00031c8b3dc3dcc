"""Scripts and styles under addresses that change with them."""

import posixpath
import re

import pytest
from fastapi.testclient import TestClient

from clients import browse, serve
from server.app import create_app
from server.settings import Settings


@pytest.fixture
def address(sqlite_settings: Settings) -> str:
    """Where the login page finds a style sheet."""
    with serve(create_app(sqlite_settings)) as client:
        found = re.search(r'href="(/static/[^"]+/css/base\.css)"', client.get("/login").text)
    assert found is not None
    return found[1]


@pytest.fixture
def client(sqlite_settings: Settings) -> TestClient:
    return TestClient(create_app(sqlite_settings), base_url="http://localhost")


def test_a_page_asks_for_files_that_are_kept_for_good(client: TestClient, address: str) -> None:
    answer = client.get(address)
    assert answer.headers["Cache-Control"] == "max-age=31536000, immutable"
    plain = client.get("/static/css/base.css")
    assert plain.headers["Cache-Control"] == "no-cache"
    assert answer.text == plain.text


def test_a_page_from_before_an_upgrade_finds_its_files(client: TestClient, address: str) -> None:
    old = re.sub(r"/v-[0-9a-f]+/", "/v-000000000000/", address)
    assert old != address
    answer = client.get(old)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-cache")


def test_a_module_is_loaded_with_all_that_it_imports(client: TestClient, sqlite_settings: Settings) -> None:
    """In the end a browser has asked for nothing that the page had not named."""
    with browse(create_app(sqlite_settings)) as browser:
        text = browser.get("/runs").text
    named = set(re.findall(r'<link rel="modulepreload" href="([^"]+)">', text))
    entries = re.findall(r'<script type="module" src="([^"]+)">', text)
    assert entries
    asked = list(entries)
    for address in asked:
        source = client.get(address).text
        for name in re.findall(r'(?:from|import) "(\.[^"]+)"', source):
            found = posixpath.normpath(posixpath.join(posixpath.dirname(address), name))
            asked += [found] if found not in asked else []
    assert set(asked) - set(entries) == named


@pytest.mark.parametrize("path", ["../app.py", "%2e%2e/%2e%2e/server/app.py", "css"])
def test_no_other_file_is_reached(client: TestClient, address: str, path: str) -> None:
    assert client.get(f"{address.removesuffix('css/base.css')}{path}").status_code == 404
