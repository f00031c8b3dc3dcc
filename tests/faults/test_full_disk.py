"""The disk of the runs fills up: the run waits for room, and goes on from its last checkpoint."""

from collections.abc import Iterator

import pytest

from deployment import Deployment, deploy
from full_disk import FullDisk
from server.db.tables import RunState

pytestmark = [pytest.mark.faults, pytest.mark.long]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FullDisk]:
    disk = FullDisk(tmp_path_factory.mktemp("small") / "disk", size_mb=16)
    yield disk
    disk.close()


@pytest.fixture(scope="module")
def postgres_deployment(disk: FullDisk, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """Its database lies elsewhere: what becomes of a database on a full disk is tested with the server."""
    parts = {name: request.getfixturevalue(f"tiny_{name}") for name in ("model", "text")}
    template = request.getfixturevalue("sqlite_template")
    with deploy("postgres", disk.root / "data", template=template, **parts) as deployment:
        yield deployment


def test_a_run_whose_disk_is_full_waits_for_room_and_goes_on(on_postgres: Deployment, disk: FullDisk) -> None:
    run_id = on_postgres.submit(plans={1: {26: ["hold"]}})
    on_postgres.wait_held(run_id)
    disk.fill(leave_bytes=20_000)
    on_postgres.run_dir(run_id).root.joinpath("go").touch()
    run = on_postgres.wait_state(run_id, RunState.PAUSED)
    assert (run.reason_code, run.failures, run.losses) == ("disk_full", 0, 0)
    assert on_postgres.run_dir(run_id).published()[-1].step == 20
    disk.free()
    on_postgres.ask("resume", run_id)
    run = on_postgres.wait_end(run_id)
    assert (run.state, run.attempt) == (RunState.COMPLETED, 2)
    assert on_postgres.attempts(run_id)[1].resumed_step == 20
