"""The HTML pages. Thin: they read through services, render templates and redirect after a POST."""

from fastapi import APIRouter

from server.pages import (
    banners,
    checkpoints,
    convert,
    health,
    launch,
    login,
    notices,
    presets,
    queue,
    run,
    runs,
    settings,
    sweeps,
    worker,
    workers,
)

router = APIRouter(include_in_schema=False)
for part in (
    *(login, launch, convert, presets, runs, run, health, queue, sweeps),
    *(checkpoints, workers, worker, settings, notices, banners),
):
    router.include_router(part.router)

__all__ = ["router"]
