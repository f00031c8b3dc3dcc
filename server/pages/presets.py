"""Saving and deleting presets, from the launch form."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from server.auth import CurrentUser
from server.errors import InvalidError
from server.pages import forms
from server.pages.launch import address_of, errors_of, form_again, pairs_of, preset_of
from server.services import presets
from server.services.presets import PresetRequest

router = APIRouter()


@router.post("/presets")
async def save(request: Request, user: CurrentUser) -> Response:
    """Save the form as a preset, or show it again with what is wrong."""
    return await run_in_threadpool(_save, request, user, await pairs_of(request))


@router.post("/presets/{preset_id}/delete")
def delete(request: Request, user: CurrentUser, preset_id: str) -> Response:
    """Delete a preset that was saved."""
    with request.app.state.db.write() as session:
        presets.delete_preset(session, preset_id)
    return RedirectResponse("/runs/new", status_code=303)


def _save(request: Request, user: Any, pairs: list[tuple[str, str]]) -> Response:
    named, body = preset_of(pairs), forms.parse(pairs)[1]
    body.pop("name", None)
    try:
        wanted = PresetRequest.model_validate(named | {"run": body})
        with request.app.state.db.write() as session:
            saved = presets.save_preset(session, wanted, replaces="preset.replaces" in dict(pairs))
    except (ValidationError, InvalidError) as error:
        found = errors_of(error)
        own = [message for loc, message in found if loc[:1] and loc[0] in named]
        others = [(loc[1:], message) for loc, message in found if loc[:1] == ("run",)]
        is_taken = isinstance(error, InvalidError) and any(one.code == "taken" for one in error.errors)
        preset = named | {"problem": forms.sentence_of(own[0]) if own else "", "is_taken": is_taken}
        return form_again(request, user, pairs, others, status=422, save_preset=preset)
    return RedirectResponse(address_of(request, [*pairs, ("preset", saved.id)]), status_code=303)
