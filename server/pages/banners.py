"""What every page says at its top while something is wrong; the region is fetched again every few seconds."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from server.auth import CurrentUser
from server.pages.templating import render

router = APIRouter()


@router.get("/banners")
def banners(request: Request, user: CurrentUser) -> HTMLResponse:
    """The banners alone."""
    return render(request, "_banners.html", {}, user=user)
