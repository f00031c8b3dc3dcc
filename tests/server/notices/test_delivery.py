"""Every event reaches every channel that wants it, once, whatever the other side answers first."""

import hashlib
import hmac
import json
import stat
import time
from mailbox import dripping, hook, mail_server
from typing import Any

import httpcore2
import pytest
from sqlmodel import select

from rows import add_run
from server.db.runs import record
from server.db.session import Database
from server.db.tables import Channel, Delivery, RunState
from server.errors import InvalidError
from server.notices import delivery
from server.notices.delivery import RETRY_AFTER_S, Deliveries
from server.notices.guard import GuardedBackend
from server.notices.key import signing_key
from server.services.channels import ChannelRequest, create_channel, delete_channel, send_test
from server.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_hosts": ["127.0.0.1"], "public_url": "https://sparseboard.example.org"})


def add_channel(database: Database, settings: Settings, target: str, **values: Any) -> Channel:
    with database.write() as session:
        wanted = ChannelRequest(**{"kind": "webhook", "target": target} | values)
        return create_channel(session, wanted, settings=settings)


def end_run(database: Database, name: str = "blue-fox", kind: str = "failed") -> str:
    with database.write() as session:
        run = add_run(session, name=name, state=RunState.FAILED, step=7, tokens_per_step=100, total_steps=20)
        run.latest = {"fvu/layers.5": 0.25, "l0/layers.5": "nan"}
        record(session, run.id, actor="supervisor", kind=kind, reason_code="data_error", detail="the data ended")
        return run.id


def rows(database: Database) -> list[Delivery]:
    with database.read() as session:
        return list(session.exec(select(Delivery)))


def make_due(database: Database) -> None:
    with database.write() as session:
        for row in session.exec(select(Delivery)):
            row.not_before = 0.0


def test_a_notice_is_posted_once_and_signed(database: Database, settings: Settings) -> None:
    deliveries = Deliveries(database, settings)
    with hook() as other:
        end_run(database, "before")  # nobody wanted to know then
        time.sleep(0.01)
        channel = add_channel(database, settings, other.url)
        run_id = end_run(database)
        end_run(database, kind="moved")
        assert deliveries.work() == 1
        assert deliveries.work() == Deliveries(database, settings).work() == 0
    (received,) = other.received
    headers, body = received
    content = json.loads(body)
    assert (content["event"], content["reason_code"], content["detail"]) == ("failed", "data_error", "the data ended")
    assert content["run"]["url"] == f"https://sparseboard.example.org/runs/{run_id}"
    assert (content["run"]["name"], content["run"]["tokens"]) == ("blue-fox", 700)
    assert content["metrics"]["fvu"] == 0.25
    assert content["metrics"]["l0"] is None
    stamp, _, mac = headers["Sparseboard-Signature"].partition(",v1=")
    key = signing_key(settings.data_dir, channel.id)
    expected = hmac.new(key.encode(), f"{stamp.removeprefix('t=')}.".encode() + body, hashlib.sha256).hexdigest()
    assert mac == expected
    assert abs(int(stamp.removeprefix("t=")) - time.time()) < 100


def test_what_fails_is_sent_again_and_not_forever(database: Database, settings: Settings) -> None:
    deliveries = Deliveries(database, settings)
    with hook(*[503] * 20) as other:
        add_channel(database, settings, other.url)
        end_run(database)
        assert deliveries.work() == 1
        assert deliveries.work() == 0  # not before its time
        (row,) = rows(database)
        assert (row.state, row.message, row.tries) == ("pending", "HTTP 503", 1)
        assert row.not_before > time.time()
        for _ in RETRY_AFTER_S:
            make_due(database)
            assert deliveries.work() == 1
        make_due(database)
        assert deliveries.work() == 0
    (row,) = rows(database)
    assert (row.state, row.tries, len(other.received)) == ("failed", len(RETRY_AFTER_S) + 1, len(RETRY_AFTER_S) + 1)


def test_an_outage_is_survived(database: Database, settings: Settings) -> None:
    deliveries = Deliveries(database, settings)
    with hook() as gone:
        pass
    channel = add_channel(database, settings, gone.url)
    end_run(database)
    deliveries.work()
    (row,) = rows(database)
    assert row.state == "pending"
    assert "Connect" in row.message
    with hook() as other:
        with database.write() as session:
            session.get_one(Channel, channel.id).target = other.url
        make_due(database)
        deliveries.work()
        assert [row.state for row in rows(database)] == ["sent"]


@pytest.mark.parametrize("status", [302, 404, 410])
def test_what_will_not_get_better_is_not_repeated(database: Database, settings: Settings, status: int) -> None:
    """A redirect is not followed: it may lead into the own network."""
    with hook(status) as other:
        add_channel(database, settings, other.url)
        end_run(database)
        Deliveries(database, settings).work()
    (row,) = rows(database)
    assert (row.state, row.message, len(other.received)) == ("failed", f"HTTP {status}", 1)


def test_a_channel_whose_host_is_not_allowed_any_more_gets_nothing(database: Database, settings: Settings) -> None:
    with hook() as other:
        add_channel(database, settings, other.url)
        end_run(database)
        Deliveries(database, settings.model_copy(update={"webhook_hosts": []})).work()
    (row,) = rows(database)
    assert row.state == "failed"
    assert other.received == []


def test_of_two_servers_one_sends(database: Database, settings: Settings) -> None:
    """Both have seen the same due row; the row's compare-and-set lets one of them go on."""
    with hook() as other:
        add_channel(database, settings, other.url)
        end_run(database)
        one, two = Deliveries(database, settings), Deliveries(database, settings)
        now = time.time()
        with database.write() as session:
            missing, _ = one._missing(session, list(session.exec(select(Channel))), now)
            session.add(Delivery(channel_id=missing[0][0], event_id=missing[0][1], not_before=now))
        claimed = [*one._claim(now), *two._claim(now)]
        assert len(claimed) == 1


def test_a_test_is_sent_whatever_the_channel_wants_and_a_deleted_one_gets_nothing(
    database: Database, settings: Settings
) -> None:
    deliveries = Deliveries(database, settings)
    with hook() as other:
        channel = add_channel(database, settings, other.url, events=["watch"])
        for _ in range(2):
            with database.write() as session:
                send_test(session, channel.id)
            assert deliveries.work() == 1
        assert [json.loads(body)["event"] for _, body in other.received] == ["test", "test"]
        end_run(database, kind="watch")
        with database.write() as session:
            delete_channel(session, channel.id)
        assert deliveries.work() == 0
    assert rows(database) == []


def test_an_answer_that_never_ends_is_given_up() -> None:
    with dripping() as port:
        backend = GuardedBackend(["127.0.0.1"], total_s=0.5)
        with httpcore2.ConnectionPool(network_backend=backend) as pool, pytest.raises(httpcore2.ReadTimeout):
            pool.request("POST", f"http://127.0.0.1:{port}/", extensions={"timeout": {"read": 60.0}})


def test_what_cannot_be_sent_at_all_keeps_nobody_waiting(database: Database, settings: Settings) -> None:
    deliveries = Deliveries(database, settings)
    with hook() as other:
        odd = add_channel(database, settings, other.url)
        add_channel(database, settings, other.url)
        with database.write() as session:
            session.get_one(Channel, odd.id).kind, session.get_one(Channel, odd.id).target = (
                "webhook",
                "http://127.0.0.1:x/",
            )
        end_run(database)
        deliveries.work()
    assert sorted(row.state for row in rows(database)) == ["failed", "sent"]


def test_mail(database: Database, settings: Settings) -> None:
    with mail_server() as (port, mails):
        settings = Settings(**settings.model_dump() | {"smtp_url": f"smtp://127.0.0.1:{port}"})
        add_channel(database, settings, "ada@example.org", kind="email")
        run_id = end_run(database)
        assert Deliveries(database, settings).work() == 1
    (mail,) = mails
    assert "Subject: blue-fox has failed" in mail
    assert "To: ada@example.org" in mail
    assert f"https://sparseboard.example.org/runs/{run_id}" in mail


def test_a_password_is_not_said_without_tls(database: Database, settings: Settings) -> None:
    with mail_server() as (port, mails):
        settings = Settings(**settings.model_dump() | {"smtp_url": f"smtp://me:secret@127.0.0.1:{port}"})
        add_channel(database, settings, "ada@example.org", kind="email")
        end_run(database)
        Deliveries(database, settings).work()
    (row,) = rows(database)
    assert row.state == "failed"
    assert "TLS" in row.message
    assert mails == []


@pytest.mark.parametrize("target", ["Ada <ada@example.org>", "ada", "ada@", "a@b\r\nBcc: c@d", "a@b,c@d"])
def test_odd_mail_addresses_are_refused(database: Database, settings: Settings, target: str) -> None:
    settings = Settings(**settings.model_dump() | {"smtp_url": "smtp://127.0.0.1:1"})
    with pytest.raises(InvalidError):
        add_channel(database, settings, target, kind="email")


def test_the_key_is_the_owners_alone(settings: Settings) -> None:
    first = signing_key(settings.data_dir, "a")
    assert first == signing_key(settings.data_dir, "a") != signing_key(settings.data_dir, "b")
    assert stat.S_IMODE((settings.data_dir / "notices.key").stat().st_mode) == 0o600
    assert [path.name for path in settings.data_dir.glob("notices.*")] == ["notices.key"]


def test_events_that_are_committed_late_are_found(database: Database, settings: Settings) -> None:
    """On PostgreSQL a transaction with a lower id may end after one with a higher id was seen."""
    deliveries = Deliveries(database, settings)
    with hook() as other:
        add_channel(database, settings, other.url)
        end_run(database, "early")
        deliveries.work()
        deliveries._seen_id += delivery._LATE_COMMITS // 2  # as if later ones had been seen already
        end_run(database, "late")
        assert deliveries.work() == 1
    assert [json.loads(body)["run"]["name"] for _, body in other.received] == ["early", "late"]
