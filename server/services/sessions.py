"""One-time login codes and the browser sessions that they open. Only fingerprints of secrets are stored."""

import hashlib
import secrets
import time

from sqlalchemy import delete, update
from sqlmodel import Session, col

from server.db.tables import BrowserSession, LoginCode

CODE_LIFE_S = 600
IDLE_S = 7 * 86_400
SEEN_EVERY_S = 60
"""`seen_at` is written at most this often: reading a page need not write."""

_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"


def fingerprint(secret: str) -> str:
    """SHA-256 of a secret of 80 random bits or more: no salt and no slow hash needed."""
    return hashlib.sha256(secret.encode()).hexdigest()


def issue_login_code(session: Session) -> str:
    """A new one-time code, e.g. `k7pm-3wzx-q9ra-t2vb` (79 bits), good for ten minutes."""
    now = time.time()
    session.execute(delete(LoginCode).where(col(LoginCode.expires_at) < now))
    code = "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(4))
    session.add(LoginCode(id=fingerprint(code), expires_at=now + CODE_LIFE_S))
    return code


def redeem(session: Session, code: str) -> str | None:
    """Trade a code for the secret of a new browser session; None when it is unknown, used or too old.

    The code is deleted first: of two who redeem it at once one gets a session.
    """
    written = code.strip().lower()
    good = delete(LoginCode).where(col(LoginCode.id) == fingerprint(written), col(LoginCode.expires_at) > time.time())
    if session.execute(good).rowcount == 0:  # type: ignore[attr-defined]
        return None
    session.execute(delete(BrowserSession).where(col(BrowserSession.seen_at) < time.time() - IDLE_S))
    secret = secrets.token_urlsafe(32)
    session.add(BrowserSession(id=fingerprint(secret), csrf_token=secrets.token_urlsafe(32)))
    return secret


def find(session: Session, secret: str) -> BrowserSession | None:
    """The live session of a cookie."""
    return find_by_id(session, fingerprint(secret))


def find_by_id(session: Session, session_id: str) -> BrowserSession | None:
    """The live session with this fingerprint."""
    row = session.get(BrowserSession, session_id)
    return row if row is not None and row.seen_at > time.time() - IDLE_S else None


def touch(session: Session, session_id: str) -> None:
    """Note that a browser was here."""
    session.execute(update(BrowserSession).where(col(BrowserSession.id) == session_id).values(seen_at=time.time()))


def end(session: Session, session_id: str) -> None:
    """Log a browser out; its event streams end with it."""
    session.execute(delete(BrowserSession).where(col(BrowserSession.id) == session_id))
