"""How values read on a page."""

from typing import Any

import pytest

from server.pages.formatting import DASH, plain
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
