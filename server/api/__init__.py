"""The REST API, version 1. Thin: it reads through services and answers with its own models, never with tables."""

from fastapi import APIRouter

from server.api import (
    checkpoints,
    config,
    control,
    language_models,
    lineage,
    metrics,
    notices,
    plans,
    presets,
    pushes,
    queue,
    runs,
    sweeps,
    tokens,
    views,
    workers,
)
from server.api.dependencies import KnownQuery
from server.api.description import PROBLEM

router = APIRouter(dependencies=[KnownQuery], responses={"default": PROBLEM})
for part in (
    *(runs, lineage, plans, metrics, control, checkpoints, pushes, queue),
    *(sweeps, presets, workers, views, tokens, notices, config, language_models),
):
    router.include_router(part.router)

__all__ = ["router"]
