"""The HTML pages. Thin: they read through services, render templates and redirect after a POST."""

from fastapi import APIRouter

from server.pages import banners, checkpoints, launch, login, presets, queue, run, runs, settings, sweeps, workers

router = APIRouter(include_in_schema=False)
for part in (login, launch, presets, runs, run, queue, sweeps, checkpoints, workers, settings, banners):
    router.include_router(part.router)

__all__ = ["router"]
