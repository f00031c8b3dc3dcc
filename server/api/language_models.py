"""`/api/v1/models`: the language models that can be trained on."""

from typing import Annotated

from fastapi import APIRouter, Query

from server.api.dependencies import SettingsDep, SingleQuery
from server.services import model_shapes
from sparsify_core.shape import ModelShape

router = APIRouter(prefix="/models", tags=["models"], dependencies=[SingleQuery])


@router.get("/shape")
def get_shape(
    settings: SettingsDep,
    model: Annotated[str, Query(min_length=1, max_length=4096)],
    revision: Annotated[str | None, Query(max_length=200)] = None,
) -> ModelShape:
    """The modules of a model with their widths, from its configuration alone: a minute the first time, then at once."""
    return model_shapes.shape_of(settings, model, revision or None)
