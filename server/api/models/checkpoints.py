"""Answers about checkpoints, their latents and their pushes."""

from pydantic import BaseModel

from server.api.models.base import Model, Value


class CheckpointOut(Model):
    id: str
    run_id: str
    attempt: int
    step: int
    manifest_sha256: str
    size_bytes: int
    evaluation: dict[str, dict[str, Value]]
    created_at: float


class CheckpointList(BaseModel):
    items: list[CheckpointOut]


class FileOut(Model):
    path: str
    size_bytes: int
    sha256: str


class CheckpointDetail(CheckpointOut):
    coders: list[str]
    files: list[FileOut]


class TokenActivation(BaseModel):
    text: str
    activation: float | None
    is_peak: bool


class SnippetOut(BaseModel):
    """A firing of a latent with the text around it."""

    activation: float
    tokens: list[TokenActivation]


class LatentOut(BaseModel):
    """One latent on the held-out text."""

    coder: str
    latent: int
    firing_frac: float
    max_activation: Value
    decoder_norm: Value
    snippets: list[SnippetOut]


class PushOut(Model):
    id: str
    checkpoint_id: str
    run_id: str
    repo_id: str
    private: bool
    state: str
    """running, completed or failed."""
    url: str
    message: str
    created_at: float
    finished_at: float | None


class PushList(BaseModel):
    items: list[PushOut]
