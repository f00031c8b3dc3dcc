"""Numbers as people type them."""

import pytest

from server.services.amounts import amount


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0.4", 0.4),
        ("20M", 2e7),
        ("40%", 0.4),
        ("70%", 0.7),
        ("20,000,000", 2e7),
        ("1e-3", 1e-3),
        ("-.5", -0.5),
        ("+3k", 3000),
    ],
)
def test_a_number_is_read(text: str, wanted: float) -> None:
    assert amount(text) == wanted


@pytest.mark.parametrize("text", ["", "much", "0,4", "1,00,0", "20m", "nan", "inf", "0x10", "1_000"])
def test_what_is_no_number_is_not_guessed_at(text: str) -> None:
    assert amount(text) is None
