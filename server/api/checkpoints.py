"""`/api/v1/checkpoints`: rows, files, the look inside, pushes."""

import hashlib
import mimetypes
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from sqlmodel import Session

from server.api.dependencies import Body, DatabaseDep, ReadSession, SettingsDep, SingleQuery, body_schema, json_body
from server.api.models import CheckpointDetail, CheckpointOut, FileOut, LatentOut, PushList, PushOut, RunOut, SnippetOut
from server.api.runs import IdempotencyKey, answer_once
from server.auth import CurrentUser
from server.db.tables import Run
from server.errors import NotFoundError
from server.services import archive, checkpoints, forks, hub

router = APIRouter(prefix="/checkpoints", tags=["checkpoints"], dependencies=[SingleQuery])

_SANDBOX = {"Content-Security-Policy": "default-src 'none'; sandbox", "Cache-Control": "private, max-age=0"}


class PushRequest(BaseModel):
    """A push to the Hugging Face Hub."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    repo_id: Annotated[str, Field(min_length=3, max_length=200)]
    """Repository as owner/name; created when it does not exist."""

    private: bool = True
    """Whether a new repository is private."""

    token: SecretStr | None = None
    """Hugging Face token for this push; not stored. Empty takes the server's HF_TOKEN."""


class ForkRequest(BaseModel):
    """A run that starts from a checkpoint."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: Annotated[str | None, Field(max_length=200)] = None
    """Empty names it after the run and the step."""

    changes: Annotated[dict[str, Any], Field(max_length=100)] = {}
    """What is other than in the checkpoint's run: dotted name of the field -> value."""


ForkBody = Annotated[Body[ForkRequest], Depends(json_body(ForkRequest))]
PushBody = Annotated[Body[PushRequest], Depends(json_body(PushRequest))]


@router.get("/{checkpoint_id}")
def get_checkpoint(session: ReadSession, settings: SettingsDep, checkpoint_id: str) -> CheckpointDetail:
    """One checkpoint with its files."""
    row = checkpoints.get_checkpoint(session, checkpoint_id)
    files = [FileOut.model_validate(entry) for entry in checkpoints.files(settings, row)]
    plain = CheckpointOut.model_validate(row).model_dump()
    return CheckpointDetail(**plain, coders=checkpoints.coders(settings, row), files=files)


@router.get("/{checkpoint_id}/zip", response_class=StreamingResponse)
def get_zip(session: ReadSession, settings: SettingsDep, checkpoint_id: str) -> StreamingResponse:
    """All files of a checkpoint as one zip."""
    row = checkpoints.get_checkpoint(session, checkpoint_id)
    name = f"{row.run_id}-step-{row.step:08d}.zip"
    headers = _SANDBOX | {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(archive.zip_stream(settings, row), media_type="application/zip", headers=headers)


@router.get("/{checkpoint_id}/files/{path:path}", response_class=FileResponse)
def get_file(session: ReadSession, settings: SettingsDep, checkpoint_id: str, path: str) -> FileResponse:
    """One file of a checkpoint."""
    row = checkpoints.get_checkpoint(session, checkpoint_id)
    found = checkpoints.file_path(settings, row, path)
    kind = mimetypes.guess_type(found.name)[0] or "application/octet-stream"
    return FileResponse(found, media_type=kind, filename=path.replace("/", "_"), headers=_SANDBOX)


@router.get("/{checkpoint_id}/latents/{latent}")
def get_latent(
    session: ReadSession,
    settings: SettingsDep,
    checkpoint_id: str,
    latent: int,
    coder: Annotated[str, Query(min_length=1, max_length=400)],
    context: Annotated[int, Query(ge=0, le=64)] = 12,
) -> LatentOut:
    """One latent of a sparse coder: how often it fires, and where most strongly on the held-out text."""
    row = checkpoints.get_checkpoint(session, checkpoint_id)
    found = checkpoints.inspection(settings, row, coder)
    if not 0 <= latent < found.num_latents:
        raise NotFoundError(f"This coder has latents 0 to {found.num_latents - 1}.")
    snippets = [
        SnippetOut.model_validate(
            {
                "activation": value,
                "tokens": [{"text": text, "activation": at, "is_peak": peak} for text, at, peak in tokens],
            }
        )
        for value, tokens in found.top_snippets(latent, context)
    ]
    return LatentOut(
        coder=coder,
        latent=latent,
        firing_frac=float(found.firing_frac[latent]),
        max_activation=finite(float(found.max_activation[latent])),
        decoder_norm=finite(float(found.decoder_norm[latent])),
        snippets=snippets,
    )


@router.post("/{checkpoint_id}/pushes", status_code=202, openapi_extra=body_schema(PushRequest), tags=["pushes"])
def create_push(
    response: Response,
    body: PushBody,
    user: CurrentUser,
    database: DatabaseDep,
    settings: SettingsDep,
    checkpoint_id: str,
) -> PushOut:
    """Start the upload of a checkpoint to the Hub; look at the push for its end."""
    wanted = body.value
    with database.write() as session:
        push = hub.start_push(
            session,
            checkpoint_id,
            settings=settings,
            repo_id=wanted.repo_id,
            private=wanted.private,
            token=wanted.token,
            actor=user.name,
        )
    response.headers["Location"] = f"/api/v1/pushes/{push.id}"
    return PushOut.model_validate(push)


@router.get("/{checkpoint_id}/pushes", tags=["pushes"])
def list_checkpoint_pushes(session: ReadSession, checkpoint_id: str) -> PushList:
    """Pushes of a checkpoint, newest first."""
    checkpoints.get_checkpoint(session, checkpoint_id)
    return PushList(items=[PushOut.model_validate(row) for row in hub.list_pushes(session, checkpoint_id)])


@router.post("/{checkpoint_id}/fork", status_code=201, openapi_extra=body_schema(ForkRequest))
def fork(
    response: Response,
    body: ForkBody,
    user: CurrentUser,
    database: DatabaseDep,
    settings: SettingsDep,
    checkpoint_id: str,
    idempotency_key: IdempotencyKey = None,
) -> RunOut:
    """Queue a run that starts from the checkpoint with changes. It goes on at its step with the optimizer's state, or,
    where a change rules that out, starts at step 0 from its weights: `config.finetune_state` says which.
    """

    def create(session: Session) -> Run:
        wanted = forks.changed_request(session, checkpoint_id, body.value.name, body.value.changes)
        return forks.fork_run(session, checkpoint_id, run_id, wanted, settings=settings, actor=user.name)

    fingerprint = hashlib.sha256(f"fork {checkpoint_id} {body.sha256}".encode()).hexdigest()
    with forks.kept_checkpoint(database, checkpoint_id, settings=settings) as run_id:
        return answer_once(response, database, idempotency_key, fingerprint, create)


def finite(value: float) -> float | str:
    """A number as JSON can hold it."""
    return value if value - value == 0 else str(value)
