"""Fixtures that several folders share: settings, migrated databases on both engines, a broker, a tiny model."""

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from full_disk import FullDisk
from server.db.migrate import upgrade
from server.db.session import Database
from server.settings import Settings
from services import broker, execute, postgres

if shutil.which("nvidia-smi") is None:
    # Without a GPU the Triton kernels run in the interpreter. Triton reads this when it is imported, by whichever test.
    os.environ["TRITON_INTERPRET"] = "1"

_SERVICES = {"postgres_socket", "broker_url", "undisturbed"}
"""Fixtures that start PostgreSQL, a broker, or training."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What starts PostgreSQL or a broker is no unit test: `make unit` leaves it out. What needs a GPU is skipped, what
    takes long is left to `make faults`.
    """
    if "faults" not in config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if on_gpu:
        import torch  # slow to import, and most tests of the server do without

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
    for item in items:
        engine = (
            item.callspec.params.get("settings")
            if isinstance(item, pytest.Function) and hasattr(item, "callspec")
            else None
        )
        if engine == "postgres" or _SERVICES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def postgres_socket() -> Iterator[str]:
    """Socket directory of a PostgreSQL cluster that has a migrated template database."""
    with postgres() as socket:
        execute(socket, "CREATE DATABASE template_sparseboard")
        upgrade(Settings(database_url=f"postgresql+psycopg:///template_sparseboard?host={socket}&user=postgres"))
        yield socket


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A migrated, empty SQLite database, as the bytes of its file."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("template"), database_url="")
    upgrade(settings)
    return (settings.data_dir / "sparseboard.db").read_bytes()


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of a fresh deployment, once on SQLite and once on PostgreSQL."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    if request.param == "sqlite":
        (data_dir / "sparseboard.db").write_bytes(request.getfixturevalue("sqlite_template"))
        yield Settings(data_dir=data_dir, database_url="")
        return
    socket = request.getfixturevalue("postgres_socket")
    name = f"t_{secrets.token_hex(6)}"
    execute(socket, f"CREATE DATABASE {name} TEMPLATE template_sparseboard STRATEGY file_copy")
    yield Settings(data_dir=data_dir, database_url=f"postgresql+psycopg:///{name}?host={socket}&user=postgres")
    execute(socket, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_settings(tmp_path: Path, sqlite_template: bytes) -> Settings:
    """Settings of a fresh deployment on SQLite, for tests to which the engine does not matter."""
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "sparseboard.db").write_bytes(sqlite_template)
    return Settings(data_dir=data_dir, database_url="")


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """The migrated database of `settings`."""
    database = Database(settings)
    yield database
    database.engine.dispose()


@pytest.fixture(scope="session")
def broker_url() -> Iterator[str]:
    """URL of a running Redis-protocol server."""
    with broker() as url:
        yield url


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random two-layer Llama with a tokenizer of single words, in the Hugging Face format."""
    from tiny import build_model

    return build_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSONL file of texts that `tiny_model`'s tokenizer knows."""
    from tiny import build_text

    return build_text(tmp_path_factory.mktemp("tiny") / "text.jsonl")


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[FullDisk]:
    """A disk of 8 MB that can be filled."""
    disk = FullDisk(tmp_path / "disk", size_mb=8)
    yield disk
    disk.close()
