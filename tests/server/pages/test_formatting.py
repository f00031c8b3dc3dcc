"""How values read on a page."""

from typing import Any

import pytest

from server.numbers import DASH, duration
from server.pages.formatting import plain
from server.pages.forms import changes, values_of
from server.pages.views import config_groups


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, DASH), ([], DASH), ("", DASH), (0, "0"), (True, "yes"), (20_000_000, "20,000,000")),
        *((1e-5, "1e-05"), (1.0, "1"), (0.1234567, "0.1234567"), (["h.1", "h.2"], "h.1 h.2"), ("adam", "adam")),
    ],
)
def test_a_value_is_written_alike_everywhere(value: Any, text: str) -> None:
    assert plain(value) == text


def test_a_configuration_and_its_changes_read_like_the_list_of_runs() -> None:
    config = {"max_tokens": 20_000_000, "sae": {"transcode": True}, "lr": 1.0}
    rows = {name: text for _, group in config_groups(config) for name, text, *_ in group}
    assert (rows["max_tokens"], rows["sae.transcode"], rows["lr"]) == ("20,000,000", "yes", "1")
    found = [(one.before, one.after) for one in changes(values_of({}), values_of({"sae": {"transcode": True}}))]
    assert found == [("no", "yes")]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3725, "1 h 2 min"), (7200, "2 h"), (90_000, "1 d 1 h"), (None, DASH)],
)
def test_a_duration_has_two_parts_at_most_and_none_that_is_nothing(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
