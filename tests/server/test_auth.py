"""Logging in, CSRF, tokens, names of the host, size of the body, headers."""

import time
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError
from sqlmodel import select

from clients import visit
from server.app import create_app
from server.auth import issue_login_code
from server.cli import main
from server.db.tables import ApiToken, BrowserSession, LoginCode
from server.middleware import CONTENT_SECURITY_POLICY, MAX_BODY_BYTES
from server.services import sessions, tokens
from server.settings import Settings

JSON = {"content-type": "application/json"}


def csrf(app: FastAPI) -> str:
    with app.state.db.read() as session:
        return session.exec(select(BrowserSession.csrf_token)).one()


def code(app: FastAPI) -> str:
    with app.state.db.write() as session:
        return issue_login_code(session)


def test_a_code_opens_one_session_and_no_second(anonymous: TestClient, sqlite_app: FastAPI) -> None:
    secret = code(sqlite_app)
    first = anonymous.post("/login", data={"code": f" {secret.upper()} "})
    assert first.status_code == 303
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert anonymous.get("/runs").status_code == 200
    anonymous.cookies.clear()
    assert anonymous.post("/login", data={"code": secret}).status_code == 401
    assert anonymous.get("/runs").status_code == 303


def test_only_fingerprints_of_secrets_are_stored(browser: TestClient, sqlite_app: FastAPI) -> None:
    secret = code(sqlite_app)
    with sqlite_app.state.db.read() as session:
        assert session.exec(select(LoginCode.id)).one() == sessions.fingerprint(secret)
        assert session.exec(select(BrowserSession.id)).one() == sessions.fingerprint(
            next(iter(browser.cookies.values()))
        )


def test_an_old_code_opens_nothing(anonymous: TestClient, sqlite_app: FastAPI) -> None:
    secret = code(sqlite_app)
    with sqlite_app.state.db.write() as session:
        session.exec(select(LoginCode)).one().expires_at = time.time() - 1
    assert anonymous.post("/login", data={"code": secret}).status_code == 401


def test_guessing_codes_is_slowed_down(anonymous: TestClient, sqlite_app: FastAPI) -> None:
    answers = [anonymous.post("/login", data={"code": "wrong"}).status_code for _ in range(11)]
    assert answers == [401] * 10 + [429]
    assert anonymous.post("/login", data={"code": code(sqlite_app)}).status_code == 429


def test_an_idle_session_ends(browser: TestClient, sqlite_app: FastAPI) -> None:
    with sqlite_app.state.db.write() as session:
        session.exec(select(BrowserSession)).one().seen_at = time.time() - sessions.IDLE_S - 1
    assert browser.get("/runs").status_code == 303


def test_logging_out_ends_the_session_on_the_server(browser: TestClient, sqlite_app: FastAPI) -> None:
    cookies = dict(browser.cookies)
    assert browser.post("/logout", data={"csrf_token": csrf(sqlite_app)}).status_code == 303
    browser.cookies.update(cookies)
    assert browser.get("/runs").status_code == 303


@pytest.mark.parametrize(
    ("headers", "form", "status"),
    [
        ({}, {}, 403),
        ({"X-CSRF-Token": "wrong"}, {}, 403),
        ({}, {"csrf_token": "wrong"}, 403),
        ({"X-CSRF-Token": "*"}, {}, 200),
        ({}, {"csrf_token": "*"}, 200),
        ({"X-CSRF-Token": "*", "Sec-Fetch-Site": "cross-site"}, {}, 403),
        ({"X-CSRF-Token": "*", "Sec-Fetch-Site": "same-site"}, {}, 403),
        ({"X-CSRF-Token": "*", "Sec-Fetch-Site": "same-origin"}, {}, 200),
        ({"X-CSRF-Token": "*", "Sec-Fetch-Site": "none"}, {}, 200),
        ({"X-CSRF-Token": "*", "Origin": "null"}, {}, 403),
        ({"X-CSRF-Token": "*", "Origin": "http://evil.example"}, {}, 403),
        ({"X-CSRF-Token": "*", "Origin": "http://127.0.0.1:9999"}, {}, 403),
        ({"X-CSRF-Token": "*", "Origin": "http://127.0.0.1:8420"}, {}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, {"csrf_token": "*"}, 403),
    ],
)
def test_what_changes_something_needs_our_own_page(
    browser: TestClient, sqlite_app: FastAPI, headers: dict[str, str], form: dict[str, str], status: int
) -> None:
    token = csrf(sqlite_app)
    sent = {name: token if value == "*" else value for name, value in headers.items()}
    fields = {"name": "t"} | {name: token if value == "*" else value for name, value in form.items()}
    assert browser.post("/settings/tokens", headers=sent, data=fields).status_code == status
    with sqlite_app.state.db.read() as session:
        assert len(session.exec(select(ApiToken)).all()) == (1 if status == 200 else 0)


def test_a_multipart_form_may_carry_the_token(browser: TestClient, sqlite_app: FastAPI) -> None:
    fields = {"csrf_token": (None, csrf(sqlite_app)), "name": (None, "multipart")}
    assert browser.post("/settings/tokens", files=fields).status_code == 200


def test_the_rest_api_takes_the_cookie_with_the_csrf_header(
    browser: TestClient, sqlite_app: FastAPI, valid: dict[str, Any]
) -> None:
    assert browser.get("/api/v1/runs").status_code == 200
    assert browser.post("/api/v1/runs", json=valid).status_code == 403
    assert browser.post("/api/v1/runs", json=valid, headers={"X-CSRF-Token": csrf(sqlite_app)}).status_code == 201


def test_logging_in_from_another_site_is_refused(anonymous: TestClient, sqlite_app: FastAPI) -> None:
    secret = code(sqlite_app)
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        assert anonymous.post("/login", data={"code": secret}, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer sb_wrong",
        "Bearer {short}",
        "Basic {good}",
        "{good}",
        "Bearer sb_" + "x" * 10_000,
        "Bearer \u00e9",
    ],
)
def test_wrong_tokens_open_nothing(sqlite_api: TestClient, authorization: str) -> None:
    good = sqlite_api.headers["Authorization"].removeprefix("Bearer ")
    assert sqlite_api.get("/api/v1/runs").status_code == 200
    sent = authorization.format(good=good, short=good[:-1]).encode()
    assert sqlite_api.get("/api/v1/runs", headers={b"Authorization": sent}).status_code == 401


def test_a_token_in_the_query_string_is_not_looked_at(sqlite_api: TestClient) -> None:
    secret = sqlite_api.headers.pop("Authorization").removeprefix("Bearer ")
    for name in ("token", "access_token", "api_key"):
        assert sqlite_api.get("/api/v1/runs", params={name: secret}).status_code == 401


def test_a_wrong_token_is_not_made_good_by_a_cookie(browser: TestClient) -> None:
    assert browser.get("/api/v1/runs", headers={"Authorization": "Bearer sb_wrong"}).status_code == 401


def test_tokens_are_made_listed_and_revoked(sqlite_api: TestClient, sqlite_app: FastAPI) -> None:
    made = sqlite_api.post("/api/v1/tokens", json={"name": "laptop"})
    assert made.status_code == 201
    secret, token_id = made.json()["token"], made.json()["id"]
    with sqlite_app.state.db.read() as session:
        assert session.get_one(ApiToken, token_id).token_sha256 == sessions.fingerprint(secret)
    assert secret not in sqlite_api.get("/api/v1/tokens").text
    mine = {"Authorization": f"Bearer {secret}"}
    assert sqlite_api.get("/api/v1/runs", headers=mine).status_code == 200
    for _ in range(2):
        assert sqlite_api.delete(f"/api/v1/tokens/{token_id}").json()["revoked_at"] is not None
    assert sqlite_api.get("/api/v1/runs", headers=mine).status_code == 401
    assert secret.startswith(tokens.PREFIX)


def test_a_token_that_is_revoked_while_it_is_used_stays_revoked(sqlite_app: FastAPI, sqlite_api: TestClient) -> None:
    made = sqlite_api.post("/api/v1/tokens", json={"name": "laptop"}).json()
    with sqlite_app.state.db.read() as session:
        used = tokens.find(session, made["token"])
    assert used is not None
    sqlite_api.delete(f"/api/v1/tokens/{made['id']}")
    with sqlite_app.state.db.write() as session:
        tokens.touch(session, used.id)
    with sqlite_app.state.db.read() as session:
        assert tokens.find(session, made["token"]) is None


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.nip.io", "127.0.0.1.evil.example:8420", "", "localhost.evil", "0.0.0.0"]
)
def test_foreign_names_of_the_host_are_refused(anonymous: TestClient, host: str) -> None:
    answer = anonymous.get("/healthz", headers={"Host": host})
    assert answer.status_code == 400
    assert answer.json()["code"] == "unknown_host"


def test_own_names_of_the_host_are_taken_and_forwarded_ones_ignored(anonymous: TestClient) -> None:
    for host in ("localhost:1234", "127.0.0.1", "[::1]:8420", "LOCALHOST"):
        headers = {"Host": host, "X-Forwarded-Host": "evil.example"}
        answer = anonymous.get("/runs", headers=headers)
        assert answer.status_code == 303
        assert "evil" not in answer.headers["location"]


def test_two_host_headers_are_refused(anonymous: TestClient) -> None:
    headers = [("Host", "127.0.0.1"), ("Host", "evil.example")]
    assert anonymous.get("/healthz", headers=headers).status_code == 400


def test_a_large_body_is_refused_before_it_is_read(sqlite_api: TestClient) -> None:
    def endless() -> Any:
        for _ in range(64):
            yield b"x" * (1 << 20)

    for content in (b"x" * (MAX_BODY_BYTES + 1), endless()):
        answer = sqlite_api.post("/api/v1/runs", content=content, headers=JSON)
        assert answer.status_code == 413
        assert answer.json()["code"] == "too_large"


def test_a_large_form_is_refused(browser: TestClient) -> None:
    assert browser.post("/settings/tokens", data={"name": "x" * (MAX_BODY_BYTES + 1)}).status_code == 413
    many = "&".join(f"f{n}=1" for n in range(100_000))
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert browser.post("/settings/tokens", content=many, headers=form).status_code == 400


@pytest.mark.parametrize("path", ["/login", "/healthz", "/nothing", "/api/v1/runs", "/static/css/base.css"])
def test_every_answer_carries_the_headers_that_browsers_obey(anonymous: TestClient, path: str) -> None:
    headers = anonymous.get(path).headers
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert len(headers["x-request-id"]) == 16


def test_the_policy_allows_nothing_inline_and_nothing_foreign() -> None:
    assert CONTENT_SECURITY_POLICY == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def test_pages_and_data_are_not_stored(browser: TestClient) -> None:
    for path in ("/runs", "/api/v1/runs", "/login"):
        assert browser.get(path).headers["cache-control"] == "no-store"


def test_a_defect_says_nothing_but_a_number(
    browser: TestClient, sqlite_app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    @sqlite_app.get("/api/v1/defect")
    def defect() -> None:
        raise RuntimeError("secret detail")

    answer = browser.get("/api/v1/defect")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "secret detail" in caplog.text
    assert answer.json()["request_id"] in caplog.text


def test_a_database_that_does_not_answer_is_said_to_be_busy(browser: TestClient, sqlite_app: FastAPI) -> None:
    @sqlite_app.get("/api/v1/busy")
    def busy() -> None:
        raise OperationalError("SELECT secret", {}, Exception("database is locked"))

    answer = browser.get("/api/v1/busy")
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "SELECT" not in answer.text


def test_errors_are_pages_for_people_and_regions_for_htmx(browser: TestClient) -> None:
    page = browser.get("/runs/nothing")
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    assert "There is no such run." in page.text
    region = browser.get("/runs/nothing", headers={"HX-Request": "true"})
    assert region.status_code == 404
    assert "<html" not in region.text
    assert "There is no such run." in region.text


def test_behind_tls_the_cookie_is_bound_to_the_host(sqlite_settings: Settings) -> None:
    app = create_app(sqlite_settings.model_copy(update={"https": True}))
    with visit(app) as client:
        cookie = client.post("/login", data={"code": code(app)}).headers["set-cookie"]
    assert cookie.startswith("__Host-sparseboard_session=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


def test_a_login_link_leads_to_where_people_reach_the_server(
    sqlite_settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("SPARSEBOARD_PUBLIC_URL", "https://sae.example.org")
    assert main(["login", "--data-dir", str(sqlite_settings.data_dir)]) == 0
    assert capsys.readouterr().out.startswith("https://sae.example.org/login#code=")
