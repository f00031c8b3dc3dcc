"""`/api/v1/presets`: filled-in configurations to start from."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from server.api.dependencies import Body, DatabaseDep, ReadSession, SettingsDep, SingleQuery, body_schema, json_body
from server.api.models import Model
from server.auth import CurrentUser
from server.services import presets
from server.services.presets import PresetRequest

router = APIRouter(prefix="/presets", tags=["presets"], dependencies=[SingleQuery])

PresetBody = Annotated[Body[PresetRequest], Depends(json_body(PresetRequest))]


class PresetOut(Model):
    id: str
    """A word for those that come with Sparseboard."""
    name: str
    description: str
    config: dict[str, Any]
    launch: dict[str, Any]
    """What a run from it is asked for with besides the configuration."""
    is_own: bool
    """Whether somebody has saved it, so that it can be deleted."""


class PresetList(Model):
    items: list[PresetOut]


@router.get("")
def list_presets(session: ReadSession, settings: SettingsDep) -> PresetList:
    """Those that come with Sparseboard, then those that were saved."""
    return PresetList(items=[PresetOut.model_validate(one) for one in presets.list_presets(session, settings)])


@router.post("", status_code=201, openapi_extra=body_schema(PresetRequest))
def save_preset(response: Response, body: PresetBody, user: CurrentUser, database: DatabaseDep) -> PresetOut:
    """Save a preset."""
    with database.write() as session:
        saved = presets.save_preset(session, body.value)
    response.headers["Location"] = f"/api/v1/presets/{saved.id}"
    return PresetOut.model_validate(saved)


@router.get("/{preset_id}")
def get_preset(session: ReadSession, settings: SettingsDep, preset_id: str) -> PresetOut:
    """One preset."""
    return PresetOut.model_validate(presets.get_preset(session, settings, preset_id))


@router.delete("/{preset_id}", status_code=204)
def delete_preset(preset_id: str, user: CurrentUser, database: DatabaseDep) -> None:
    """Delete a preset that was saved."""
    with database.write() as session:
        presets.delete_preset(session, preset_id)
