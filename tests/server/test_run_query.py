"""The language of the search box: whatever is written comes back as the terms that were meant."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.services.run_fields import all_fields, find_field
from server.services.run_query import OPERATORS, Comparison, QueryError, Term, Word, parse
from sparsify_core.config import RunConfig, iter_fields
from sparsify_core.metrics import METRICS

texts = st.text(st.characters(exclude_characters="\x00"), max_size=12)
words = st.builds(Word, texts, st.booleans())
names = st.from_regex(r"[a-z_][a-z0-9_.]{0,8}", fullmatch=True)
single = st.builds(Comparison, names, st.sampled_from(OPERATORS), st.tuples(texts), st.booleans())
several = st.builds(
    Comparison, names, st.sampled_from([":", "="]), st.lists(texts, min_size=1, max_size=3).map(tuple), st.booleans()
)


def written(term: Term) -> str:
    """A term as somebody may type it, with every text in quotes."""
    sign = "-" if term.negated else ""
    if isinstance(term, Word):
        return sign + quoted(term.text)
    return f"{sign}{term.field}{term.operator}{','.join(map(quoted, term.values))}"


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def meant(term: Term) -> Term:
    if isinstance(term, Comparison) and term.operator == "!=":
        return Comparison(term.field, "=", term.values, not term.negated)
    return term


@settings(deadline=None)
@given(st.lists(st.one_of(words, single, several), max_size=6), st.sampled_from([" ", "  ", "\n\t"]))
def test_what_is_written_is_read_again(terms: list[Term], space: str) -> None:
    assert parse(space.join(map(written, terms))) == [meant(term) for term in terms]


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_query_or_a_query_error(text: str) -> None:
    try:
        terms = parse(text)
    except QueryError:
        return
    assert all(isinstance(term, Word | Comparison) for term in terms)


def test_terms_are_written_as_people_write_them() -> None:
    assert parse("state:running,queued  k>=32 -tag:draft -old lr!=1e-3 gpt2") == [
        Comparison("state", ":", ("running", "queued")),
        Comparison("k", ">=", ("32",)),
        Comparison("tag", ":", ("draft",), negated=True),
        Word("old", negated=True),
        Comparison("lr", "=", ("1e-3",), negated=True),
        Word("gpt2"),
    ]


@pytest.mark.parametrize("text", ["k>", "k:1,", '"open', "-", "k>1,2", "\x00", "x " * 31])
def test_what_is_unfinished_says_so(text: str) -> None:
    with pytest.raises(QueryError):
        parse(text)


def test_every_field_and_metric_can_be_named_and_a_wrong_name_is_helped() -> None:
    for spec in iter_fields(RunConfig):
        assert find_field(spec.flag) == find_field(spec.name)
    for name in METRICS:
        assert any(field.key == f"metric.{name}" for field in all_fields())
    assert find_field("lr").group != "Metrics"
    assert find_field("metric.lr").group == "Metrics"
    names = [field.name for field in all_fields()]
    assert len(names) == len(set(names))
    with pytest.raises(QueryError, match="Did you mean eval_fvu"):
        find_field("eval_fvuu")
