"""What surrounds every request: its id, the names we answer to, the size we read, the headers that browsers obey."""

import logging
import secrets
import time
from collections.abc import Callable, Iterable

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import errors
from server.errors import AppError, TooLargeError

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 2 << 20

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    b"content-security-policy": CONTENT_SECURITY_POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}
_NOT_CACHED = (b"text/html", b"application/json", b"application/problem+json")


class Envelope:
    """ASGI middleware, the outermost: also the last place that an exception reaches."""

    def __init__(self, app: ASGIApp, *, allowed_hosts: list[str], observe: Callable[[str, int, float], None]) -> None:
        self._app = app
        self._observe = observe
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request = Request(scope, receive)
        request.state.request_id = secrets.token_hex(8)
        started = False
        arrived_at = time.monotonic()

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._observe(request.method, message["status"], time.monotonic() - arrived_at)
                message["headers"] = _with_headers(message["headers"], request.state.request_id)
            await send(message)

        try:
            self._check(request)
            await self._app(scope, _limited(receive), send_with_headers)
        except Exception as error:
            if started:
                raise
            response = errors.render(request, errors.problem(error, request.state.request_id))
            await response(scope, receive, send_with_headers)
        return None

    def _check(self, request: Request) -> None:
        """A browser that was tricked into calling us by a foreign name (DNS rebinding) is turned away."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or _without_port(hosts[0].lower()) not in self._allowed_hosts:
            raise AppError("This server does not answer to that name.", code="unknown_host")
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            raise _too_large()


def _with_headers(given: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """The headers of an answer with those of every answer; what the answer says itself stays."""
    headers = list(given)
    present = dict(headers)
    headers += [header for header in _HEADERS.items() if header[0] not in present]
    headers.append((b"x-request-id", request_id.encode()))
    if b"cache-control" not in present and present.get(b"content-type", b"").partition(b";")[0] in _NOT_CACHED:
        headers.append((b"cache-control", b"no-store"))
    return headers


def _limited(receive: Receive) -> Receive:
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            raise _too_large()
        return message

    return limited


def _too_large() -> TooLargeError:
    return TooLargeError(f"A request may have at most {MAX_BODY_BYTES >> 20} MiB.")


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
