"""`docs/runs.md` names what the code has."""

from pathlib import Path

from server.db.states import RunState
from server.services import control
from worker.failures import FAILURES

PAGE = (Path(__file__).parents[2] / "docs/runs.md").read_text(encoding="utf-8")


def test_every_state_reason_and_request_is_explained() -> None:
    own = [name for name, value in vars(control).items() if getattr(value, "__module__", "") == control.__name__]
    requests = [name.removesuffix("_run") for name in own if name.endswith("_run")]
    assert {"pause", "retry", "clone"} <= set(requests)
    missing = [word for word in (*RunState, *FAILURES, *requests) if f"`{word}`" not in PAGE]
    assert missing == []
