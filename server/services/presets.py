"""Filled-in forms to start from: those that come with Sparseboard, and those that people have saved."""

from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from server.db.tables import Preset
from server.errors import InvalidError, NotFoundError
from server.services.lookup import get_row
from server.services.requests import LAUNCH_FIELDS, RunRequest
from server.services.shipped_presets import SHIPPED
from server.services.text import unwanted_character
from server.settings import Settings
from sparsify_core.config import RunConfig
from sparsify_core.demo import MODEL_NAME, TEXT_NAME

DEMO = "demo"


def _without_controls(text: str) -> str:
    found = unwanted_character(text)
    if found:
        raise ValueError(f"the text holds the invisible character {found}: remove it")
    return text.strip()


class PresetRequest(BaseModel):
    """A preset to be saved."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"\S"), AfterValidator(_without_controls)]
    """What it is called; no two have the same name."""

    description: Annotated[str, Field(max_length=500), AfterValidator(_without_controls)] = ""
    """What it is for."""

    run: RunRequest
    """What a run from it is asked for with; its name is not kept."""


class PresetView(NamedTuple):
    """A preset; `id` is a word for those that come with Sparseboard."""

    id: str
    name: str
    description: str
    config: dict[str, Any]
    launch: dict[str, Any]
    is_own: bool = False
    """Whether somebody has saved it, so that it can be deleted."""


def list_presets(session: Session, settings: Settings) -> list[PresetView]:
    """The demo where its files are, what comes with Sparseboard, then what was saved, by name."""
    demo = demo_config(settings)
    found = [] if demo is None else [PresetView(DEMO, "Quick demo", _DEMO_DESCRIPTION, demo, {})]
    for one in SHIPPED:
        config = RunConfig.model_validate(one.config).model_dump(mode="json")
        found.append(PresetView(one.key, one.name, one.description, config, one.launch))
    return found + [_view(row) for row in session.exec(select(Preset).order_by(col(Preset.name)))]


def get_preset(session: Session, settings: Settings, preset_id: str) -> PresetView:
    """Raises NotFoundError."""
    for preset in list_presets(session, settings):
        if preset.id == preset_id:
            return preset
    raise NotFoundError("There is no such preset.")


def save_preset(session: Session, request: PresetRequest, *, replaces: bool = False) -> PresetView:
    """Save a preset, or save it anew.

    Args:
        replaces: whether one that was saved under this name may be overwritten; its id stays.

    Raises InvalidError when the name is taken.
    """
    taken = f"there is a preset {request.name} already: take another name"
    if request.name in {one.name for one in SHIPPED}:
        raise InvalidError.field(("name",), taken, "shipped")
    before = session.exec(select(Preset).where(Preset.name == request.name)).first() if replaces else None
    row = before or Preset(name=request.name)
    row.description = request.description
    row.config = request.run.config.model_dump(mode="json")
    row.launch = request.run.model_dump(mode="json", include=set(LAUNCH_FIELDS) - {"name"})
    session.add(row)
    try:
        session.flush()
    except IntegrityError as error:
        raise InvalidError.field(("name",), taken, "taken") from error
    return _view(row)


def delete_preset(session: Session, preset_id: str) -> None:
    """Raises NotFoundError, also for those that come with Sparseboard."""
    row = get_row(session, Preset, preset_id, "preset of yours")
    session.delete(row)


def _view(row: Preset) -> PresetView:
    return PresetView(row.id, row.name, row.description, row.config, row.launch, is_own=True)


_DEMO_DESCRIPTION = "A small model and text that are already on this machine; two CPU cores are enough."


def demo_config(settings: Settings) -> dict[str, Any] | None:
    """The demo: a small real model and text that set-up put into the data folder; None while they are not there."""
    model, text = settings.demo_dir / MODEL_NAME, settings.demo_dir / TEXT_NAME
    if not (model.is_dir() and text.is_file()):
        return None
    config = RunConfig.model_validate(
        {
            "model": str(model),
            "dataset": str(text),
            "hookpoints": ["layers.5"],
            "sae": {"k": 32, "expansion_factor": 8},
            "exclude_first": 1,
            "ctx_len": 256,
            "batch_size": 8,
            "optimizer": "adam",
            "lr": 2e-3,
            "lr_warmup_steps": 10,
            "max_tokens": 409_600,
            "eval_tokens": 8192,
            "save_every": 100,
            "keep_last": 2,
            "log_every": 1,
        }
    )
    return config.model_dump(mode="json")
