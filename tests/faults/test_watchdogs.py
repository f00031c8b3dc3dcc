"""A run that hangs is noticed: on a deployment that is quick to lose its patience."""

import signal
from collections.abc import Iterator

import pytest

from deployment import Deployment, deploy
from server.db.tables import RunState

pytestmark = [pytest.mark.faults, pytest.mark.long]


@pytest.fixture(scope="module")
def sqlite_deployment(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    parts = {name: request.getfixturevalue(f"tiny_{name}") for name in ("model", "text")}
    folder, template = tmp_path_factory.mktemp("watchdogs") / "data", request.getfixturevalue("sqlite_template")
    with deploy("sqlite", folder, template=template, **parts, SPARSEBOARD_STALLED_AFTER_S="10") as deployment:
        yield deployment


def test_a_hanging_rank_is_noticed_and_the_run_resumes(deployment: Deployment) -> None:
    run_id = deployment.submit(plans={1: {26: ["hold"]}})
    deployment.wait_held(run_id)
    deployment.ranks(run_id)[0].send_signal(signal.SIGSTOP)
    run = deployment.wait_end(run_id)
    assert (run.state, run.attempt, run.failures, run.losses) == (RunState.COMPLETED, 2, 1, 0), run.message
    first, second = deployment.attempts(run_id)
    assert (first.reason_code, second.resumed_step) == ("stalled", 20)
