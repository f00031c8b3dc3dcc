"""Settings from the environment."""

import pytest

from server.settings import Settings


def test_an_empty_hub_token_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "")  # what a compose file passes on when the user has none
    assert Settings().hf_token is None
