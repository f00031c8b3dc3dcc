"""Renders templates: filters, the logged-in user and headers that every page needs."""

from functools import partial
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment

from server.pages.formatting import FILTERS
from server.services import health

THEMES = ("light", "dark")
"""What a page's cookie may ask for; without one the system's theme counts."""


def install(environment: Environment) -> None:
    """Give a template environment the filters, and what every page asks of its request, error pages too."""
    environment.filters.update(FILTERS)
    environment.globals["theme_of"] = _theme


def is_partial(request: Request) -> bool:
    """Whether htmx asks for a region instead of a page."""
    return request.headers.get("HX-Request") == "true" and request.headers.get("HX-Request-Type") != "full"


def render(
    request: Request, template: str, context: dict[str, Any], *, user: Any = None, status: int = 200
) -> HTMLResponse:
    """Render a page or a region. Pages are never cached: they show the present and carry a CSRF token."""
    environment: Environment = request.app.state.templates.env
    shared = {"request": request, "user": user, "banners": partial(_banners, request)}
    text = environment.get_template(template).render(context | shared)
    headers = {"Cache-Control": "no-store", "Vary": "HX-Request, HX-Request-Type"}
    return HTMLResponse(text, status_code=status, headers=headers)


def _theme(request: Request) -> str:
    theme = request.cookies.get("theme", "")
    return theme if theme in THEMES else ""


def _banners(request: Request) -> list[health.Symptom]:
    """What is wrong now and is not said elsewhere."""
    state = request.app.state
    with state.db.read() as session:
        found = health.examine(session, state.settings, state.hints)
    return [symptom for symptom in found.symptoms if symptom.is_shown]
