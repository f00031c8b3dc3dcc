"""Every template compiles, the rarely seen ones render, and none does what the CSP or escaping forbids."""

import re
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader

from server.pages.templating import install
from server.static_files import StaticFolder

TEMPLATES = Path(__file__).parents[3] / "web" / "templates"
NAMES = sorted(p.relative_to(TEMPLATES).as_posix() for p in TEMPLATES.rglob("*.html"))


@pytest.fixture(scope="module")
def environment() -> Environment:
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    install(environment)
    files = StaticFolder(TEMPLATES.parent / "static")
    environment.globals |= {"static": f"/static/{files.prefix}", "module": files.module}
    return environment


@pytest.mark.parametrize("name", NAMES)
def test_template_compiles_and_keeps_the_rules(environment: Environment, name: str) -> None:
    environment.get_template(name)
    source = (TEMPLATES / name).read_text()
    assert not re.search(r"\|\s*safe\b|\sstyle=|\son[a-z]+=|hx-on|js:|javascript:", source)
    assert not re.search(r"hx-trigger[^>]*\[", source), "trigger filters need eval"
    assert source.count('method="post"') == source.count("{{ csrf(user) }}")


@pytest.mark.parametrize("has_demo", [True, False])
def test_the_first_page_of_a_new_installation_renders(environment: Environment, *, has_demo: bool) -> None:
    page = environment.get_template("runs/list.html").render(has_runs=False, has_demo=has_demo, user=None)
    assert ("preset=demo" in page) == has_demo
    assert "Train your first sparse autoencoder" in page


def test_an_error_page_escapes_its_message(environment: Environment) -> None:
    for name in ("errors/problem.html", "errors/problem_partial.html"):
        page = environment.get_template(name).render(status=404, title="Not Found", detail="<script>alert(1)</script>")
        assert "<script>alert" not in page
        assert "&lt;script&gt;" in page
