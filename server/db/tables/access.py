"""Who may use the server: tokens, browsers, login codes; and the keys that make a repeated request harmless."""

import time

from sqlmodel import Field, SQLModel

from server.db.ids import new_id


class ApiToken(SQLModel, table=True):
    """A REST token; only its SHA-256 is stored."""

    __tablename__ = "api_token"

    id: str = Field(default_factory=new_id, primary_key=True, max_length=26)
    name: str = Field(max_length=100)
    prefix: str = Field(max_length=16)
    token_sha256: str = Field(max_length=64, unique=True)
    created_at: float = Field(default_factory=time.time)
    last_used_at: float | None = None
    revoked_at: float | None = None


class BrowserSession(SQLModel, table=True):
    """A logged-in browser; only the SHA-256 of its cookie is stored."""

    __tablename__ = "browser_session"

    id: str = Field(primary_key=True, max_length=64)
    csrf_token: str = Field(max_length=64)
    created_at: float = Field(default_factory=time.time)
    seen_at: float = Field(default_factory=time.time)


class LoginCode(SQLModel, table=True):
    """A one-time login code, as printed by `sparseboard up`; only its SHA-256 is stored."""

    __tablename__ = "login_code"

    id: str = Field(primary_key=True, max_length=64)
    expires_at: float


class IdempotencyKey(SQLModel, table=True):
    """An Idempotency-Key of POST /api/v1/runs and what it created."""

    __tablename__ = "idempotency_key"

    key: str = Field(primary_key=True, max_length=200)
    body_sha256: str = Field(max_length=64)
    run_id: str = Field(foreign_key="run.id", max_length=26)
    created_at: float = Field(default_factory=time.time)
