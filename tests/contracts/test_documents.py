"""What README and docs/ name is there: pages, routes, settings, commands, tests."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.cli import main
from server.settings import Settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
PATHS = json.loads(Path(__file__).with_name("openapi.json").read_text(encoding="utf-8"))["paths"]
PATHS["/api/v1/openapi.json"] = {"get": "describes all others"}


def is_route(method: str, path: str) -> bool:
    found = [known for known in PATHS if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", known), path)]
    return any(method.lower() in PATHS[known] for known in found)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if not target.startswith(("http", "#")):
                yield page, target


def test_links_lead_somewhere() -> None:
    broken = []
    for page, target in links():
        path, _, anchor = target.partition("#")
        file = page.parent / path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(f"{page.name}: {target}")
    assert broken == []


def test_the_readme_leads_to_every_page() -> None:
    linked = {ROOT / target.partition("#")[0] for page, target in links() if page.name == "README.md"}
    assert [page.name for page in sorted(ROOT.glob("docs/*.md")) if page not in linked] == []


def test_requests_are_those_of_the_api() -> None:
    named = set(re.findall(r"(GET|POST|PATCH|DELETE) (/api/v1/[^\s`?\[,…]+)(?=[\s`?\[,])", TEXT))
    assert ("POST", "/api/v1/runs/plan") in named
    assert sorted(one for one in named if not is_route(*one)) == []


def test_settings_are_those_that_the_server_reads() -> None:
    known = {f"SPARSEBOARD_{name.upper()}" for name in Settings.model_fields}
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert sorted(set(re.findall(r"SPARSEBOARD_[A-Z_]+", TEXT + compose)) - known) == []
    assert [name for name in Settings.model_fields if not re.search(rf"`\w*{name.upper()}`", TEXT)] == []


def test_commands_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    named = set(re.findall(r"`(?:\.venv/bin/)?sparseboard (\w+(?: [a-z]+(?=[ `]))?)", TEXT))
    assert {"up", "runs launch"} <= named
    for command in sorted(named):
        with pytest.raises(SystemExit) as end:
            main([*command.split(), "--help"])
        assert end.value.code == 0, command
    capsys.readouterr()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", TEXT)) <= targets


def test_tests_that_are_named_exist() -> None:
    code = defaultdict(str)
    for file in ROOT.glob("tests/**/test_*.py"):
        code[file.name] += file.read_text(encoding="utf-8")
    named = re.findall(r"(test_\w+\.py)(?:::(test_\w+))?", TEXT)
    assert named
    assert [name for name in named if f"def {name[1]}" not in code[name[0]]] == []
