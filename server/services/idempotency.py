"""Idempotency keys: a request that is sent twice does its work once."""

import time
from collections.abc import Callable

from sqlalchemy import delete
from sqlmodel import Session, col

from server.db.tables import IdempotencyKey, Run
from server.errors import ConflictError
from server.services.runs import get_run

LIFE_S = 86_400


def once(session: Session, key: str | None, body_sha256: str, create: Callable[[], Run]) -> Run:
    """The run that `create` makes, or that it made for this key before. Without a key it is always made.

    Raises:
        ConflictError: the body was another one.
        IntegrityError: at flush or commit, when another request with the key does the same at this moment.
    """
    known = _find(session, key, body_sha256) if key else None
    if known is not None:
        return get_run(session, known)
    run = create()
    if key:
        session.add(IdempotencyKey(key=key, body_sha256=body_sha256, run_id=run.id))
    return run


def _find(session: Session, key: str, body_sha256: str) -> str | None:
    """Id of the run that this key created within the last day. Raises ConflictError when the body was another one."""
    session.execute(delete(IdempotencyKey).where(col(IdempotencyKey.created_at) < time.time() - LIFE_S))
    known = session.get(IdempotencyKey, key)
    if known is None:
        return None
    if known.body_sha256 != body_sha256:
        raise ConflictError("This Idempotency-Key was used with another body: take a new one.", code="key_reused")
    return known.run_id
