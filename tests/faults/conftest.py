"""Deployments to break, and the check of all promises behind every fault."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

import promises
from deployment import Deployment, deploy, train_undisturbed
from sparsify_core.rundir import RunDir

Deploy = Callable[[str], AbstractContextManager[Deployment]]


@pytest.fixture(scope="module")
def deploy_on(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: bytes, tiny_model: Path, tiny_text: Path
) -> Deploy:
    """Deploys on a kind of database, in a folder of its own."""

    def run(kind: str) -> AbstractContextManager[Deployment]:
        folder = tmp_path_factory.mktemp(kind) / "data"
        return deploy(kind, folder, template=sqlite_template, model=tiny_model, text=tiny_text)

    return run


@pytest.fixture(scope="module")
def sqlite_deployment(deploy_on: Deploy) -> Iterator[Deployment]:
    with deploy_on("sqlite") as deployment:
        yield deployment


@pytest.fixture(scope="module")
def postgres_deployment(deploy_on: Deploy) -> Iterator[Deployment]:
    with deploy_on("postgres") as deployment:
        yield deployment


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_text: Path) -> RunDir:
    """The standard run, trained without Sparseboard around it and without a fault."""
    return train_undisturbed(RunDir(tmp_path_factory.mktemp("undisturbed")), tiny_model, tiny_text)


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
