"""Logs: what is kept of a terminal's escapes, search through a whole file, and its download."""

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rows import add_attempt, add_run
from server.db.tables import Run
from server.services import logs
from server.services.text import coloured, printable
from server.settings import Settings

RED = "\x1b[1;31m"


def test_colours_survive_and_nothing_else_does() -> None:
    output = f"{RED}bad\x1b[0m\x1b[2J\x1b]0;title\x07 \x1b[31 q\x08\u202eend\r\n\x1b".encode()
    assert coloured(output) == f"{RED}bad\x1b[0m end\n"
    assert printable(output) == "bad end\n"
    hidden = b"\x1b]0;\x1b[31mtitle\x07text\x1b[?25l\x1b[38;5;1m!"  # a colour inside another escape
    assert "\x07" not in coloured(hidden)
    assert coloured(hidden).endswith("text\x1b[38;5;1m!")


@pytest.fixture
def run(sqlite_app: FastAPI, sqlite_api: TestClient) -> Run:
    with sqlite_app.state.db.write() as session:
        run = add_run(session, num_nodes=2)
        add_attempt(session, run)
    return run


@pytest.fixture
def log(sqlite_settings: Settings, run: Run) -> Path:
    path = sqlite_settings.run_dir(run.id).log(1)
    path.parent.mkdir(parents=True)
    return path


def test_a_search_finds_lines_across_blocks(
    sqlite_settings: Settings, run: Run, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"step {n}  fvu 0.5" + ("  Needle" if n % 50 == 7 else "") for n in range(1000)]
    log.write_text("\n".join([*lines, "the last line has a NEEDLE but no end"]))
    wanted = [(n + 1, lines[n]) for n in range(7, 1000, 50)] + [(1001, "the last line has a NEEDLE but no end")]
    for scanned in (1, 64, 4096, 1 << 20):
        monkeypatch.setattr(logs, "_SCAN_BYTES", scanned)
        found = logs.search(sqlite_settings, run, "needle")
        assert [(hit.line, hit.text) for hit in found.hits] == wanted
        assert found.is_complete
        content = log.read_bytes()
        assert all(content[hit.offset :].startswith(hit.text.encode()) for hit in found.hits)
    few = logs.search(sqlite_settings, run, "needle", limit=3)
    assert ([hit.line for hit in few.hits], few.is_complete) == ([8, 58, 108], False)
    assert logs.search(sqlite_settings, run, "needle", limit=21).is_complete
    assert logs.search(sqlite_settings, run, "nothing like it").hits == []


def test_a_match_in_a_long_line_is_shown_with_its_surroundings(sqlite_settings: Settings, run: Run, log: Path) -> None:
    log.write_text("x" * 10_000 + "needle" + "y" * 10_000 + "\nneedle\n")
    first, second = logs.search(sqlite_settings, run, "needle").hits
    assert (first.line, first.offset, second.line, second.offset) == (1, 0, 2, 20_007)
    assert "needle" in first.text
    assert len(first.text) == 400


def test_search_and_download_by_rest(sqlite_api: TestClient, run: Run, log: Path) -> None:
    of_run = f"/api/v1/runs/{run.id}/log"
    assert sqlite_api.get(f"{of_run}/download").status_code == 404
    assert sqlite_api.get(f"{of_run}/search", params={"q": "a"}).json() == {
        "attempt": 1,
        "hits": [],
        "is_complete": True,
    }
    log.write_bytes(f"{RED}Error\x1b[0m at 5\nfine\n".encode())
    log.with_name("0001.node-1.log").write_text("of the other node\n")
    (hit,) = sqlite_api.get(f"{of_run}/search", params={"q": "error"}).json()["hits"]
    assert hit == {"line": 1, "offset": 0, "text": "Error at 5", "rank": None}
    assert sqlite_api.get(f"{of_run}/search", params={"q": ""}).status_code == 422
    assert sqlite_api.get(of_run).json()["text"] == "Error at 5\nfine\n"
    assert sqlite_api.get(of_run, params={"colours": True}).json()["text"] == f"{RED}Error\x1b[0m at 5\nfine\n"
    answer = sqlite_api.get(f"{of_run}/download")
    assert answer.content == log.read_bytes()
    assert answer.headers["content-disposition"] == f'attachment; filename="{run.id}-1.log"'
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert sqlite_api.get(f"{of_run}/download", params={"node": 1}).text == "of the other node\n"
    assert sqlite_api.get(of_run, params={"node": 1}).json()["text"] == "of the other node\n"
    assert f'href="/runs/{run.id}?attempt=1&amp;node=1#log-title"' in sqlite_api.get(f"/runs/{run.id}").text
    page = sqlite_api.get(f"/runs/{run.id}", params={"attempt": "1", "node": "1"}).text
    assert "of the other node" in page
    assert "/log/download?node=1&amp;attempt=1" in page
    assert "Error at 5" in sqlite_api.get(f"/runs/{run.id}", params={"attempt": "x", "node": "7"}).text


def test_an_attempt_that_is_over_shows_its_last_line_without_an_end(
    sqlite_settings: Settings, run: Run, log: Path
) -> None:
    log.write_text("saving\nSegmentation fa")
    assert logs.tail(sqlite_settings, run).text == "saving\n"
    run.attempt = 2
    assert logs.tail(sqlite_settings, run, attempt=1).text == "saving\nSegmentation fa"


def test_matches_say_which_rank_wrote_them(sqlite_settings: Settings, run: Run, log: Path) -> None:
    log.write_text("[rank11]: " + "x" * 9000 + "needle\n[default3]:needle\nneedle [rank2]\n")
    assert [hit.rank for hit in logs.search(sqlite_settings, run, "needle").hits] == [11, 3, None]


def test_a_search_in_the_lines_of_one_rank_counts_them_alone(
    sqlite_settings: Settings, sqlite_api: TestClient, run: Run, log: Path
) -> None:
    log.write_text("[rank0]: needle\n" * 300 + "[rank1]: needle\n" * 2)
    found = logs.search(sqlite_settings, run, "needle", rank=1)
    assert ([hit.line for hit in found.hits], found.is_complete) == ([301, 302], True)
    of_run = f"/api/v1/runs/{run.id}/log/search"
    hits = sqlite_api.get(of_run, params={"q": "needle", "rank": 1}).json()["hits"]
    assert [hit["offset"] for hit in hits] == [300 * 16, 301 * 16]
    assert sqlite_api.get(of_run, params={"q": "needle", "rank": -1}).status_code == 422
