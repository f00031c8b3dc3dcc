"""Who may come in. `Guard` stands before every route and denies by default.

A browser comes with a session cookie, and for anything that changes something with a CSRF token and an honest origin;
a program comes with `Authorization: Bearer sb_...`. Secrets in query strings are never looked at.
"""

import hmac
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote, urlsplit

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from sqlmodel import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import errors
from server.db.session import Database
from server.db.trouble import TROUBLE
from server.errors import AppError, ForbiddenError, TooManyRequestsError, UnauthorizedError
from server.services import sessions, tokens
from server.services.sessions import issue_login_code
from server.settings import Settings

logger = logging.getLogger(__name__)

__all__ = ["ANONYMOUS", "CurrentUser", "Guard", "User", "issue_login_code", "log_in", "log_out"]

ANONYMOUS = (
    ("GET", "/login"),
    ("POST", "/login"),
    ("GET", "/static/"),
    ("GET", "/favicon.ico"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
)
"""All that one can reach without logging in; a path that ends with a slash stands for everything below it."""

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_COOKIE_LIFE_S = 365 * 86_400
_TRIES, _TRIES_WINDOW_S = 10, 60


@dataclass(frozen=True)
class User:
    """Who makes the request. `session_id` and `csrf_token` are empty for a program with a token."""

    name: str
    session_id: str = ""
    csrf_token: str = ""
    token_id: str = ""


async def _current(request: Request) -> User:
    user: User | None = getattr(request.state, "user", None)
    if user is None:
        raise UnauthorizedError("Log in first.")
    return user


CurrentUser = Annotated[User, Depends(_current)]


class Guard:
    """ASGI middleware: no route behind it, known or unknown, is reached by a stranger, save those in ANONYMOUS."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request = Request(scope, receive)
        try:
            receive = await self._admit(request, receive)
        except AppError as error:
            return await _refusal(request, error)(scope, receive, send)
        return await self._app(scope, receive, send)

    async def _admit(self, request: Request, receive: Receive) -> Receive:
        """Set `request.state.user` or raise. Returns the receive channel that the application reads the body from."""
        is_anonymous = _is_anonymous(request.method, request.scope["path"])
        request.state.user = None if is_anonymous else await run_in_threadpool(_identify, request)
        user: User | None = request.state.user
        if user is None and not is_anonymous:
            raise UnauthorizedError("Log in, or send a token as Authorization: Bearer sb_...")
        if request.method in _SAFE_METHODS or (user is not None and not user.session_id):
            return receive
        _check_origin(request)
        return receive if user is None else await _check_csrf_token(request, user, receive)


def is_still_welcome(database: Database, user: User) -> bool:
    """Whether a login that opened a long-lived stream still holds."""
    with database.read() as session:
        if user.session_id:
            return sessions.find_by_id(session, user.session_id) is not None
        return tokens.is_valid(session, user.token_id)


def log_in(request: Request, code: str) -> str:
    """Trade a one-time code for the value of a session cookie; hand it to `set_cookie`.

    Raises:
        UnauthorizedError: the code is unknown, used or too old.
        TooManyRequestsError: too many wrong codes within a minute.
    """
    failures: deque[float] = request.app.state.failed_logins
    now = time.monotonic()
    while failures and failures[0] < now - _TRIES_WINDOW_S:
        failures.popleft()
    if len(failures) >= _TRIES:
        raise TooManyRequestsError("Too many wrong codes: wait a minute.", retry_after_s=_TRIES_WINDOW_S)
    database: Database = request.app.state.db
    with database.write() as session:
        secret = sessions.redeem(session, code)
    if secret is None:
        failures.append(now)
        raise UnauthorizedError("This code is unknown, used or too old.", code="wrong_code")
    return secret


def log_out(request: Request, response: Response) -> None:
    """End the browser's session and take its cookie away."""
    user: User | None = request.state.user
    database: Database = request.app.state.db
    if user is not None and user.session_id:
        with database.write() as session:
            sessions.end(session, user.session_id)
    settings: Settings = request.app.state.settings
    response.delete_cookie(cookie_name(settings), path="/", secure=settings.https, httponly=True, samesite="lax")


def set_cookie(response: Response, settings: Settings, secret: str) -> None:
    """Hand the browser its session."""
    response.set_cookie(
        cookie_name(settings),
        secret,
        max_age=_COOKIE_LIFE_S,
        path="/",
        secure=settings.https,
        httponly=True,
        samesite="lax",
    )


def cookie_name(settings: Settings) -> str:
    return "__Host-sparseboard_session" if settings.https else "sparseboard_session"


def _is_anonymous(method: str, path: str) -> bool:
    wanted = "GET" if method == "HEAD" else method
    return any(wanted == m and (path == p or (p.endswith("/") and path.startswith(p))) for m, p in ANONYMOUS)


def _identify(request: Request) -> User | None:
    """A token if one is sent, right or wrong; else the cookie."""
    database: Database = request.app.state.db
    now = time.time()
    if "authorization" in request.headers:
        scheme, _, secret = request.headers["authorization"].partition(" ")
        if scheme.lower() != "bearer" or not secret.startswith(tokens.PREFIX) or len(secret) > 200:
            return None
        with database.read() as session:
            token = tokens.find(session, secret)
        if token is not None and (token.last_used_at or 0) < now - sessions.SEEN_EVERY_S:
            _note_use(request, lambda session: tokens.touch(session, token.id))
        return User(f"token {token.name}", token_id=token.id) if token else None
    secret = request.cookies.get(cookie_name(request.app.state.settings), "")
    if not secret:
        return None
    with database.read() as session:
        found = sessions.find(session, secret)
    if found is None:
        return None
    if found.seen_at < now - sessions.SEEN_EVERY_S:
        _note_use(request, lambda session: sessions.touch(session, found.id))
    return User("user", found.id, found.csrf_token)


def _note_use(request: Request, touch: Callable[[Session], None]) -> None:
    """Best effort, and after a failure not before a minute has passed: who only reads needs no database to write to."""
    state = request.app.state
    if time.monotonic() < state.no_touch_until:
        return
    try:
        with state.db.write() as session:
            touch(session)
    except TROUBLE as error:
        state.no_touch_until = time.monotonic() + sessions.SEEN_EVERY_S
        logger.warning("when a login was used last could not be written down: %s", error)


def _check_origin(request: Request) -> None:
    """A browser says where a request comes from; only our own pages may change something."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site is not None and site not in ("same-origin", "none"):
        raise ForbiddenError("The request comes from another site.", code="cross_site")
    if origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise ForbiddenError("The request comes from another origin.", code="cross_site")


async def _check_csrf_token(request: Request, user: User, receive: Receive) -> Receive:
    """Compare the token of the header, or else of the form, whose body is then handed on unread."""
    given = request.headers.get("x-csrf-token", "")
    if not given and request.headers.get("content-type", "").partition(";")[0].strip().lower() in _FORMS:
        body = await request.body()
        async with Request(request.scope, _replay(body, receive)).form() as form:
            given = str(form.get("csrf_token", ""))
        receive = _replay(body, receive)
    if not hmac.compare_digest(given.encode(), user.csrf_token.encode()):
        raise ForbiddenError("The page is too old or not ours: reload it and try again.", code="csrf")
    return receive


def _replay(body: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


def _refusal(request: Request, error: AppError) -> Response:
    """Programs learn that they must log in; people are led there and back."""
    if isinstance(error, UnauthorizedError) and not errors.is_for_programs(request.url.path):
        is_page = request.method == "GET" and request.headers.get("hx-request") != "true"
        target = quote(request.url.path + (f"?{request.url.query}" if request.url.query else ""), safe="")
        address = f"/login?next={target}" if is_page and request.url.path != "/" else "/login"
        if request.headers.get("hx-request") == "true":
            return Response(status_code=401, headers={"HX-Redirect": address})
        return RedirectResponse(address, status_code=303)
    response = errors.render(request, error)
    if isinstance(error, UnauthorizedError):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
