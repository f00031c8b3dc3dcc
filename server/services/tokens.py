"""REST tokens: shown once, stored as a fingerprint, revocable."""

import hmac
import secrets
import time

from sqlalchemy import bindparam, update
from sqlmodel import Session, col, select

from server.db.tables import ApiToken
from server.errors import InvalidError
from server.services.lookup import get_row
from server.services.sessions import fingerprint
from server.services.text import unwanted_character

PREFIX = "sb_"
_SHOWN = 8
_BY_FINGERPRINT = select(ApiToken).where(col(ApiToken.token_sha256) == bindparam("fingerprint"))
"""Built once: every request of a program asks it."""


def create_token(session: Session, name: str) -> tuple[ApiToken, str]:
    """A new token and its secret, which is never shown again. Raises InvalidError for an empty or odd name."""
    name = name.strip()
    if not name or len(name) > 100 or unwanted_character(name):
        raise InvalidError.field(("name",), "Give the token a name of 1 to 100 visible characters.", "name")
    secret = PREFIX + secrets.token_urlsafe(32)
    token = ApiToken(name=name, prefix=secret[:_SHOWN], token_sha256=fingerprint(secret))
    session.add(token)
    return token, secret


def list_tokens(session: Session) -> list[ApiToken]:
    """All tokens, revoked ones too, newest first."""
    return list(session.exec(select(ApiToken).order_by(col(ApiToken.created_at).desc(), col(ApiToken.id).desc())))


def revoke_token(session: Session, token_id: str) -> ApiToken:
    """Idempotent. Raises NotFoundError."""
    token = get_row(session, ApiToken, token_id, "token")
    token.revoked_at = token.revoked_at or time.time()
    session.add(token)
    return token


def is_valid(session: Session, token_id: str) -> bool:
    """Whether a token exists and is not revoked."""
    token = session.get(ApiToken, token_id)
    return token is not None and token.revoked_at is None


def touch(session: Session, token_id: str) -> None:
    """Note that a token was used, and nothing else: it may have been revoked since it was read."""
    session.execute(update(ApiToken).where(col(ApiToken.id) == token_id).values(last_used_at=time.time()))


def find(session: Session, secret: str) -> ApiToken | None:
    """The token with this secret, if it is not revoked."""
    wanted = fingerprint(secret)
    token = session.exec(_BY_FINGERPRINT, params={"fingerprint": wanted}).first()
    if token is None or token.revoked_at is not None or not hmac.compare_digest(token.token_sha256, wanted):
        return None
    return token
