"""Deployment settings: environment variables, and nothing else, decide where things live and who may come in.

The worker, the migrations and docker-compose.yml read the same names. Secrets come from the environment too; they are
never stored in a run's configuration.
"""

import os
import socket
from functools import lru_cache
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from server.scheduling import Label
from sparsify_core.rundir import RunDir


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "sparseboard"


class Settings(BaseSettings):
    """Settings of one deployment; every field `x` is read from `SPARSEBOARD_X`."""

    model_config = SettingsConfigDict(env_prefix="SPARSEBOARD_", frozen=True, extra="ignore", populate_by_name=True)

    data_dir: Path = Field(default_factory=_default_data_dir)
    """Folder of everything that must survive: database, runs, demo model, broker state. Shared by server and worker."""

    database_url: str = Field(default="", validation_alias=AliasChoices("DATABASE_URL", "SPARSEBOARD_DATABASE_URL"))
    """SQLAlchemy URL; empty means SQLite in the data folder."""

    redis_url: str = Field(default="", validation_alias=AliasChoices("REDIS_URL", "SPARSEBOARD_REDIS_URL"))
    """Broker URL; `sparseboard up` starts an embedded broker and sets it when it is empty."""

    host: str = "127.0.0.1"
    """Address the server binds to."""

    port: int = Field(default=8420, ge=0, le=65535)
    """Port the server binds to; 0 takes a free one."""

    worker_name: str = Field(default_factory=socket.gethostname, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Name of the worker that this machine runs; several on one machine need different ones."""

    worker_labels: list[Label] = []
    """What runs may ask of the worker, for example `a100`."""

    worker_address: str = ""
    """Address under which other workers reach this one for runs on several nodes; empty means its host name."""

    cpu_slots: int = Field(default=1, ge=0, le=64)
    """How many runs the worker trains on the CPU at a time."""

    allowed_hosts: list[str] = ["127.0.0.1", "localhost", "[::1]"]
    """Names under which browsers may call the server (the Host header, without port)."""

    source_roots: list[Path] = []
    """Folders, besides the demo's, in which local models and datasets may lie."""

    lease_s: float = Field(default=60, ge=10)
    """A worker may be silent for so long before its runs are started again elsewhere. It renews its leases twelve times
    as often. Where workers on several machines share the database, it ends training itself when it could not do so for
    three quarters of that time."""

    stalled_after_s: float = Field(default=600, gt=0)
    """A run that trains and makes no step for so long is taken to hang: it is ended, and tried again."""

    https: bool = False
    """Whether browsers reach the server through TLS: marks cookies Secure."""

    hf_token: SecretStr | None = Field(default=None, validation_alias=AliasChoices("HF_TOKEN", "SPARSEBOARD_HF_TOKEN"))
    """Hugging Face token for pushes; may also be typed at the push."""

    hf_endpoint: str = Field(
        default="https://huggingface.co", validation_alias=AliasChoices("HF_ENDPOINT", "SPARSEBOARD_HF_ENDPOINT")
    )
    """Address of the Hugging Face Hub."""

    public_url: str = Field(default="", pattern=r"^(https?://[^\s/?#@]+)?$")
    """Address under which people reach the server, like https://sae.example.org, for login links and notices."""

    webhook_hosts: list[str] = []
    """Hosts of the own network to which notices may be sent all the same, also without TLS."""

    smtp_url: SecretStr | None = None
    """Mail server for notices, like smtps://user:password@mail.example.org or smtp://localhost:25; smtp uses STARTTLS
    where the server offers it, and always before it says a password."""

    mail_from: str = "sparseboard@localhost"
    """Sender of notices by mail."""

    @field_validator("hf_token", "smtp_url")
    @classmethod
    def _empty_is_none(cls, secret: SecretStr | None) -> SecretStr | None:
        return secret if secret and secret.get_secret_value() else None  # compose files pass `HF_TOKEN=` on

    @property
    def resolved_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir / 'sparseboard.db'}"

    @property
    def demo_dir(self) -> Path:
        return self.data_dir / "demo"

    @property
    def runs_dir(self) -> Path:
        return self.data_dir / "runs"

    @property
    def activations_dir(self) -> Path:
        """Caches of activations; a run's `cache_activations` is a name below it."""
        return self.data_dir / "activations"

    def run_dir(self, run_id: str) -> RunDir:
        """Directory of a run; `run_id` is always one that the server made."""
        return RunDir(self.runs_dir / run_id)


@lru_cache
def get_settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
