"""Deployments to break, and the check of all promises behind every fault."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import promises
from deployment import Deployment, deploy
from services import python
from sparsify_core.config import RunConfig
from sparsify_core.rundir import RunDir


@pytest.fixture(scope="module")
def sqlite_deployment(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: bytes, tiny_model: Path, tiny_text: Path
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("sqlite") / "data"
    with deploy("sqlite", folder, template=sqlite_template, model=tiny_model, text=tiny_text) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def postgres_deployment(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: bytes, tiny_model: Path, tiny_text: Path
) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("postgres") / "data"
    with deploy("postgres", folder, template=sqlite_template, model=tiny_model, text=tiny_text) as deployment:
        yield deployment


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_text: Path) -> RunDir:
    """The standard run, trained without Sparseboard around it and without a fault."""
    run_dir = RunDir(tmp_path_factory.mktemp("undisturbed"))
    body = Deployment.body_of(tiny_model, tiny_text)
    run_dir.config.write_text(RunConfig.model_validate(body["config"]).model_dump_json())
    torchrun = python("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1")
    words = [*torchrun, "-m", "sparsify_core", "--config", str(run_dir.config), "--run_dir", str(run_dir.root)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return run_dir


def kept(deployment: Deployment, undisturbed: RunDir) -> Iterator[Deployment]:
    """The deployment in service; behind the test every run ends, and all promises must have been kept."""
    deployment.settle()
    before = len(deployment.accepted)
    yield deployment
    deployment.settle()
    promises.check(deployment, deployment.accepted[before:], reference=undisturbed)


@pytest.fixture
def deployment(sqlite_deployment: Deployment, undisturbed: RunDir) -> Iterator[Deployment]:
    """On SQLite."""
    yield from kept(sqlite_deployment, undisturbed)


@pytest.fixture
def on_postgres(postgres_deployment: Deployment, undisturbed: RunDir) -> Iterator[Deployment]:
    """On PostgreSQL."""
    yield from kept(postgres_deployment, undisturbed)


@pytest.fixture(params=["sqlite", "postgres"])
def either(request: pytest.FixtureRequest, undisturbed: RunDir) -> Iterator[Deployment]:
    """Once on SQLite and once on PostgreSQL."""
    yield from kept(request.getfixturevalue(f"{request.param}_deployment"), undisturbed)
