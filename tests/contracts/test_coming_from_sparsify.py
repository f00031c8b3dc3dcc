"""docs/coming-from-sparsify.md says the truth about flags."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from oracle import install
from sparsify_core.config import RunConfig, iter_fields

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from-sparsify.md").read_text(encoding="utf-8")
TABLE: dict[str, str] = dict(re.findall(r"^\| `(\w+)` \| (same|new default|differs) \| .*\|$", PAGE, re.MULTILINE))
OURS = {spec.flag: spec for spec in iter_fields(RunConfig)}
COMPUTED = object()


def default_of(value: ast.expr | None) -> Any:
    """The default that a field of upstream's dataclasses declares; COMPUTED where a function makes it."""
    if isinstance(value, ast.Call):
        if isinstance(value.func, ast.Name) and value.func.id == "list_field":
            return [ast.literal_eval(item) for item in value.args]
        named = {keyword.arg: keyword.value for keyword in value.keywords}
        return ast.literal_eval(named["default"]) if "default" in named else COMPUTED
    return COMPUTED if value is None else ast.literal_eval(value)


@pytest.fixture(scope="module")
def upstream() -> dict[str, Any]:
    """Flag -> default, of upstream's configuration classes."""
    flags = {}
    for module in ("config.py", "__main__.py"):
        tree = ast.parse((install() / "sparsify" / module).read_text(encoding="utf-8"))
        for item in ast.walk(tree):
            if isinstance(item, ast.ClassDef):
                fields = [line for line in item.body if isinstance(line, ast.AnnAssign)]
                flags |= {field.target.id: default_of(field.value) for field in fields}
    del flags["sae"]
    return flags


@pytest.mark.integration
def test_every_flag_of_sparsify_is_in_the_table(upstream: dict[str, Any]) -> None:
    assert TABLE.keys() == upstream.keys()


@pytest.mark.integration
def test_defaults_are_what_the_table_calls_them(upstream: dict[str, Any]) -> None:
    for flag, verdict in TABLE.items():
        if verdict != "differs":
            assert (OURS[flag].default == upstream[flag]) is (verdict == "same"), flag
    assert TABLE.keys() - OURS.keys() == {"hf_token"}


def test_every_flag_of_ours_is_on_the_page() -> None:
    listed = set(re.findall(r"`(\w+)`", PAGE.partition("## New flags")[2].partition("\n## ")[0]))
    assert OURS.keys() - TABLE.keys() <= listed
    assert not listed & TABLE.keys()
