"""`sparseboard doctor` finds what is missing, says what to do, and harms nothing."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from clients import listening
from full_disk import FullDisk
from hub_stand_in import TOKEN, StandIn
from server.db.session import Database
from server.db.tables import Worker
from server.doctor import run as doctor
from server.doctor import services
from server.doctor.finding import Finding, fail, ok, warn
from server.doctor.machine import collectives, devices
from server.settings import Settings
from services import python

NOWHERE = "postgresql+psycopg://u:topsecret@127.0.0.1:1/d"


def test_a_deployment_that_was_never_started_is_no_failure_and_stays_unmade(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", database_url="", redis_url="", hf_token=None)
    found = [
        check(settings).verdict
        for check in (services.disk, services.database, services.migrations, services.worker, services.hub_token)
    ]
    assert found == ["ok", "warn", "warn", "warn", "warn"]
    assert not settings.data_dir.exists()


def test_a_migrated_database_is_fine(settings: Settings) -> None:
    assert services.database(settings).verdict == "ok"
    assert services.migrations(settings).verdict == "ok"
    assert services.worker(settings).verdict == "warn"


def test_tables_of_another_version_are_a_failure_with_the_command(settings: Settings) -> None:
    database = Database(settings)
    with database.write() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '0002'")
    database.engine.dispose()
    finding = services.migrations(settings)
    assert (finding.verdict, finding.advice) == ("fail", "run `sparseboard migrate`")
    assert "0002" in finding.sentence


def test_a_database_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url=NOWHERE)
    for check in (services.database, services.migrations):
        finding = check(settings)
        assert finding.verdict == "fail"
        assert "topsecret" not in str(finding)
    assert services.worker(settings).verdict == "warn"


def test_the_broker_answers_or_does_not(sqlite_settings: Settings, broker_url: str) -> None:
    assert services.broker(sqlite_settings.model_copy(update={"redis_url": ""})).sentence.startswith("embedded: Valkey")
    assert services.broker(sqlite_settings.model_copy(update={"redis_url": broker_url})).verdict == "ok"
    wrong = broker_url.replace("redis+socket://:", "redis+socket://:x")
    assert services.broker(sqlite_settings.model_copy(update={"redis_url": wrong})).verdict == "fail"
    assert services.broker(sqlite_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"})).verdict == "fail"


@pytest.mark.parametrize(
    ("consumer_age_s", "verdict"), [(5.0, "ok"), (1000.0, "warn")], ids=["takes messages", "takes none"]
)
def test_a_worker_that_takes_no_messages_is_noticed(
    sqlite_settings: Settings, consumer_age_s: float, verdict: str
) -> None:
    database = Database(sqlite_settings)
    now = time.time()
    with database.write() as session:
        session.add(Worker(name="w", host="h", pid=1, seen_at=now, started_at=0, consumed_at=now - consumer_age_s))
    database.engine.dispose()
    assert services.worker(sqlite_settings).verdict == verdict


def test_a_full_disk_is_a_failure(sqlite_settings: Settings, full_disk: FullDisk) -> None:
    finding = services.disk(full_disk.move(sqlite_settings))
    assert (finding.verdict, "MB are free" in finding.sentence) == ("fail", True)


@pytest.mark.parametrize(
    ("token", "refuse_with", "verdict"), [(TOKEN, 0, "ok"), ("hf_wrong", 0, "fail"), (TOKEN, 500, "warn")]
)
def test_the_hub_is_asked_for_the_token(sqlite_settings: Settings, token: str, refuse_with: int, verdict: str) -> None:
    stand_in = StandIn(refuse_with=refuse_with)
    with listening(stand_in.app()) as url:
        settings = sqlite_settings.model_copy(update={"hf_endpoint": url, "hf_token": SecretStr(token)})
        finding = services.hub_token(settings)
    assert finding.verdict == verdict
    assert token not in str(finding)
    assert stand_in.calls[0] == "GET /api/whoami-v2"


def test_a_hub_that_cannot_be_reached_is_a_warning(sqlite_settings: Settings) -> None:
    settings = sqlite_settings.model_copy(
        update={"hf_endpoint": "http://127.0.0.1:1", "hf_token": SecretStr("hf_canary")}
    )
    finding = services.hub_token(settings)
    assert (finding.verdict, "cannot be reached" in finding.sentence) == ("warn", True)
    assert "hf_canary" not in str(finding)


def test_one_failure_makes_the_exit_status_and_a_broken_check_keeps_no_other(
    sqlite_settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: Settings) -> Finding:
        raise ZeroDivisionError("oops")

    checks = {"first": lambda _: ok("fine"), "second": lambda _: warn("so so", "do this"), "third": broken}
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert doctor.doctor(sqlite_settings, with_training=False) == 1
    printed = capsys.readouterr().out
    assert "ok    first        fine\nwarn  second       so so\n                   -> do this\nfail  third" in printed
    checks["third"] = lambda _: fail("bad", "mend it")
    assert doctor.doctor(sqlite_settings, with_training=False) == 1
    del checks["third"]
    assert doctor.doctor(sqlite_settings, with_training=False) == 0


@pytest.mark.integration
def test_devices_and_collectives_are_tried_for_real(sqlite_settings: Settings) -> None:
    assert devices(sqlite_settings).verdict == "ok"
    finding = collectives(sqlite_settings)
    assert finding.verdict == "ok", finding
    assert "processes" in finding.sentence or "NCCL" in finding.sentence


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A socket in it has a path that is short enough, which pytest's own folders make too long."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="doctor-") as folder:
        yield Path(folder)


@pytest.mark.integration
def test_the_command_trains_from_end_to_end_and_leaves_nothing(tmp_path: Path, short_folder: Path) -> None:
    environment = os.environ | {"DATABASE_URL": "", "REDIS_URL": "", "HF_TOKEN": "", "TMPDIR": str(short_folder)}
    command = python("-m", "server.cli", "doctor", "--train", "--data-dir", str(tmp_path / "data"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "steps through queue, worker and torchrun" in done.stdout
    assert [path.name for path in short_folder.iterdir() if path.name.startswith("sparseboard")] == []
    assert not (tmp_path / "data").exists()
