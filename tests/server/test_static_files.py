"""Scripts and styles under addresses that change with them."""

import importlib.util
import posixpath
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from fastapi.testclient import TestClient

from clients import browse, serve
from server.app import create_app
from server.settings import Settings
from server.static_files import StaticFolder

ROOT = Path(__file__).parents[2]


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
    """In the end a browser has asked for nothing that the page had not named, be it bundles or the modules."""
    with browse(create_app(sqlite_settings)) as browser:
        text = browser.get("/runs").text
    named = set(re.findall(r'<link rel="modulepreload" href="([^"]+)">', text))
    entries = re.findall(r'<script type="module" src="([^"]+)">', text)
    assert entries
    asked = list(entries)
    for address in asked:
        source = client.get(address).text
        for name in re.findall(r'(?:from|import) ?"(\.[^"]+)"', source):
            found = posixpath.normpath(posixpath.join(posixpath.dirname(address), name))
            asked += [found] if found not in asked else []
    assert set(asked) - set(entries) == named


@pytest.fixture(scope="module")
def bundling() -> ModuleType:
    """The script of that name."""
    spec = importlib.util.spec_from_file_location("bundle_scripts", ROOT / "scripts" / "bundle_scripts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_bundles_are_loaded_until_a_script_changes(bundling: ModuleType, tmp_path: Path) -> None:
    """Two pages share a module; there is one of it, in a chunk that both load."""
    scripts = {"one.js": 'import { n } from "./shared.js";\nconsole.log(n);\n', "shared.js": "export const n = [1];\n"}
    (tmp_path / "js").mkdir()
    for name, text in (scripts | {"two.js": scripts["one.js"]}).items():
        (tmp_path / "js" / name).write_text(text)
    assert loaded(tmp_path) == ["js/shared.js", "js/one.js"]
    esbuild = next((ROOT / "node_modules" / "@esbuild").glob("*/bin/esbuild"), None)
    if esbuild is None:
        pytest.skip("esbuild is not in node_modules: run `make setup-test`")
    bundling.bundle(esbuild, tmp_path, ["js/one.js", "js/two.js"])
    chunk, bundle = loaded(tmp_path)
    assert re.fullmatch(r"bundles/one\.js", bundle)
    assert "[1]" in (tmp_path / chunk).read_text()
    assert posixpath.basename(chunk) in (tmp_path / bundle).read_text()
    assert loaded(tmp_path, "js/two.js") == [chunk, "bundles/two.js"]
    (tmp_path / "js" / "shared.js").write_text("export const n = [2];\n")
    assert loaded(tmp_path) == ["js/shared.js", "js/one.js"]


def loaded(static: Path, script: str = "js/one.js") -> list[str]:
    """The files that a page's tags load for a script, in their order."""
    folder = StaticFolder(static)
    return re.findall(rf'"/static/{folder.prefix}/([^"]+)"', folder.module(script))


@pytest.mark.parametrize("path", ["../app.py", "%2e%2e/%2e%2e/server/app.py", "css"])
def test_no_other_file_is_reached(client: TestClient, address: str, path: str) -> None:
    assert client.get(f"{address.removesuffix('css/base.css')}{path}").status_code == 404
