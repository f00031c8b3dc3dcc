"""Idempotency keys: a request that is sent twice does its work once."""

import time

from sqlalchemy import delete
from sqlmodel import Session, col

from server.db.tables import IdempotencyKey
from server.errors import ConflictError

LIFE_S = 86_400


def find(session: Session, key: str, body_sha256: str) -> str | None:
    """Id of the run that this key created within the last day. Raises ConflictError when the body was another one."""
    session.execute(delete(IdempotencyKey).where(col(IdempotencyKey.created_at) < time.time() - LIFE_S))
    known = session.get(IdempotencyKey, key)
    if known is None:
        return None
    if known.body_sha256 != body_sha256:
        raise ConflictError("This Idempotency-Key was used with another body: take a new one.", code="key_reused")
    return known.run_id


def remember(session: Session, key: str, body_sha256: str, run_id: str) -> None:
    """Tie a key to the run that it created."""
    session.add(IdempotencyKey(key=key, body_sha256=body_sha256, run_id=run_id))
