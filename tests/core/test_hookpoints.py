"""Hookpoint patterns that can match no module are told apart from those that may."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparsify_core.errors import HookpointError
from sparsify_core.hookpoints import match_patterns, pattern_problem

PART = st.sampled_from(("layers", "h", "mlp", "10", "down_proj", "c-fc"))
NAME = st.lists(PART, min_size=1, max_size=4).map(".".join)
PIECE = st.sampled_from((*"[]!*?.-", "0", "9", "a", "layers", "mlp", "[0-9]", "[!5]", "[9-0]"))


@settings(max_examples=300, deadline=None)
@example("[[0-9]0", "10")
@example("layers.[0,1]", "layers.0")
@example("layers.[0!]", "layers.0")
@example("layers.[*0]", "layers.0")
@example("layers.[!!0]", "layers.1")
@example("[]a]", "a")
@example("layers.[5-15]", "layers.5")
@example("layers.[!9-0]", "layers.0")
@example("[!- ]", "a")
@given(st.lists(PIECE, min_size=1, max_size=6).map("".join), NAME)
def test_what_is_refused_matches_nothing(pattern: str, name: str) -> None:
    assert not (pattern_problem(pattern) and fnmatchcase(name, pattern))


@pytest.mark.parametrize("pattern", ["layers.*", "h.?.mlp", "layers.[0-9]", "layers.1[!02].mlp", "*", "a-b", "x.[a-]"])
def test_what_may_match_is_taken(pattern: str) -> None:
    assert pattern_problem(pattern) == ""


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("[a", "its brackets are not whole"),
        ("layers.[]", "its brackets are not whole"),
        ("layers.[!]", "its brackets are not whole"),
        ("layers.[9-0]", "nothing lies from 9 to 0: write [0-9]"),
        (".layers", "a dot has no name"),
        ("layers..5", "a dot has no name"),
        ("layers.", "a dot has no name"),
    ],
)
def test_what_can_match_nothing_says_why(pattern: str, reason: str) -> None:
    assert reason in pattern_problem(pattern)
    with pytest.raises(HookpointError, match=f"{reason[:14]}"):
        match_patterns(["layers.0"], [pattern])
