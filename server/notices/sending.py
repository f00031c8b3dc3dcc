"""Sends one notice: a signed POST, or a mail."""

import hashlib
import hmac
import json
import smtplib
import ssl
import time
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

import httpcore2

from server.notices.guard import GuardedBackend, RefusedError, check_url
from server.notices.message import Notice
from server.settings import Settings

TIMEOUT_S = 10.0
_RETRIED = (408, 425, 429)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class SendError(Exception):
    """The notice did not arrive; `is_final`: and will not if it is sent again."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


def signature(key: str, ts: int, body: bytes) -> str:
    """`t=<seconds>,v1=<hex>`: HMAC-SHA256 over `<seconds>.<body>`, so that an old notice cannot be sent as new."""
    return f"t={ts},v1={hmac.new(key.encode(), f'{ts}.'.encode() + body, hashlib.sha256).hexdigest()}"


def post(url: str, notice: Notice, *, key: str, settings: Settings) -> str:
    """POST a notice. Returns what the other side answered. Raises SendError. Redirects are not followed."""
    body = json.dumps(notice.payload, allow_nan=False).encode()
    headers: dict[bytes | str, bytes | str] = {
        "Content-Type": "application/json",
        "User-Agent": "Sparseboard",
        "Sparseboard-Signature": signature(key, int(time.time()), body),
    }
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_S)
    try:
        check_url(url, settings.webhook_hosts)
        with (
            httpcore2.ConnectionPool(network_backend=GuardedBackend(settings.webhook_hosts)) as pool,
            pool.stream("POST", url, headers=headers, content=body, extensions={"timeout": timeouts}) as answer,
        ):
            status = answer.status  # what follows is not read: it may have no end
    except RefusedError as error:
        raise SendError(str(error), is_final=True) from error
    except (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, OSError) as error:
        raise SendError(f"{type(error).__name__}: {error}"[:300]) from error
    if 200 <= status < 300:
        return f"HTTP {status}"
    is_final = 300 <= status < 500 and status not in _RETRIED
    raise SendError(f"HTTP {status}", is_final=is_final)


def mail(address: str, notice: Notice, *, settings: Settings) -> str:
    """Send a notice by mail. Returns what the mail server answered. Raises SendError."""
    if settings.smtp_url is None:
        raise SendError("no mail server is set: SPARSEBOARD_SMTP_URL", is_final=True)
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = notice.title, settings.mail_from, address
    message.set_content(notice.text)
    url = urlsplit(settings.smtp_url.get_secret_value())
    try:
        with _connected(url.scheme, url.hostname or "", url.port or 0) as server:
            if url.username and not isinstance(server.sock, ssl.SSLSocket):
                raise SendError("the mail server offers no TLS, so the password was not sent", is_final=True)
            if url.username:
                server.login(unquote(url.username), unquote(url.password or ""))
            server.send_message(message)
    except smtplib.SMTPResponseException as error:
        raise SendError(f"SMTP {error.smtp_code}", is_final=500 <= error.smtp_code < 600) from error
    except (smtplib.SMTPException, OSError) as error:
        raise SendError(f"{type(error).__name__}: {error}"[:300]) from error
    return "accepted"


def _connected(scheme: str, host: str, port: int) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if scheme == "smtps":
        return smtplib.SMTP_SSL(host, port or 465, timeout=TIMEOUT_S, context=context)
    server = smtplib.SMTP(host, port or 587, timeout=TIMEOUT_S)
    server.ehlo()
    if host not in _LOOPBACK and server.has_extn("starttls"):  # no authority certifies localhost
        server.starttls(context=context)
    return server
