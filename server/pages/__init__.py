"""The HTML pages. Thin: they read through services, render templates and redirect after a POST."""

from fastapi import APIRouter

from server.pages import (
    annotations,
    banners,
    bulk,
    checkpoints,
    compare,
    convert,
    health,
    launch,
    lineage,
    login,
    notices,
    plan,
    presets,
    queue,
    run,
    runs,
    saved_views,
    settings,
    sweeps,
    worker,
    workers,
)

router = APIRouter(include_in_schema=False)
for part in (
    *(
        login,
        launch,
        convert,
        plan,
        presets,
        bulk,
        compare,
        saved_views,
        runs,
        annotations,
        run,
        lineage,
        health,
        queue,
    ),
    *(sweeps, checkpoints, workers, worker, settings, notices, banners),
):
    router.include_router(part.router)

__all__ = ["router"]
