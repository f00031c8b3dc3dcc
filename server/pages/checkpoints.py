"""The page of one checkpoint: numbers, latents, files, pushes to the Hub."""

import re
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import SecretStr

from server.auth import CurrentUser
from server.errors import ConflictError, InvalidError
from server.numbers import count, metric, metric_form
from server.pages.svg import density_histogram, linear_histogram
from server.pages.templating import is_partial, render
from server.pages.views import RunView, Tile, config_groups
from server.services import checkpoints, hub, runs
from sparsify_core.errors import CheckpointError
from sparsify_core.metrics import METRICS

if TYPE_CHECKING:  # numpy costs memory that a server without visitors of this page does not need
    from sparsify_core.inspect.read import Inspection

router = APIRouter()


@router.get("/checkpoints/{checkpoint_id}")
def page(
    request: Request,
    user: CurrentUser,
    checkpoint_id: str,
    coder: str = "",
    latent: Annotated[str, Query(max_length=12)] = "",
    sort: str = "max",
    order: str = "",
    at: Annotated[str, Query(alias="page", max_length=12)] = "",
) -> HTMLResponse:
    """The whole page, or only the latent browser when htmx asks for it."""
    context = _context(request, checkpoint_id, coder)
    inspection: Inspection | None = context["inspection"]
    if inspection is not None:
        from server.pages.latents import COLUMNS, LatentQuery, browse  # numpy: see above

        wanted = sort if sort in dict(COLUMNS) else "max"
        query = LatentQuery(
            checkpoint_id, context["coder"], _natural(latent), wanted, ascending=order == "asc", page=_natural(at)
        )
        context |= browse(inspection, query)
        context |= _histograms(inspection, context["latent_id"])
        if is_partial(request):
            return render(request, "checkpoint/_latents.html", context, user=user)
    return render(request, "checkpoint/page.html", context, user=user)


@router.get("/checkpoints/{checkpoint_id}/pushes")
def pushes(request: Request, user: CurrentUser, checkpoint_id: str) -> HTMLResponse:
    """The list of pushes, polled while one is running."""
    with request.app.state.db.read() as session:
        row = checkpoints.get_checkpoint(session, checkpoint_id)
        found = hub.list_pushes(session, checkpoint_id)
    return render(request, "checkpoint/_pushes.html", {"checkpoint": row, "pushes": found}, user=user)


@router.post("/checkpoints/{checkpoint_id}/push")
def push(
    request: Request,
    user: CurrentUser,
    checkpoint_id: str,
    repo_id: Annotated[str, Form(max_length=200)] = "",
    token: Annotated[SecretStr | None, Form(max_length=500)] = None,
    private: Annotated[list[str] | None, Form()] = None,
) -> Response:
    """Start a push, or show the page again with what is wrong; the token is never shown again."""
    is_private = (private or ["true"])[-1] == "true"
    settings = request.app.state.settings
    try:
        with request.app.state.db.write() as session:
            hub.start_push(
                session,
                checkpoint_id,
                settings=settings,
                repo_id=repo_id.strip(),
                private=is_private,
                token=token,
                actor="user",
            )
    except (InvalidError, ConflictError) as error:
        context = _context(request, checkpoint_id, "") | {
            "push_error": error.errors[0].msg if error.errors else error.detail,
            "push_error_field": str(error.errors[0].loc[-1]) if error.errors else "repo_id",
        }
        context["push"] |= {"repo_id": repo_id, "private": is_private}
        return render(request, "checkpoint/push_refused.html", context, user=user, status=error.status)
    return RedirectResponse(f"/checkpoints/{checkpoint_id}#push", status_code=303)


def _context(request: Request, checkpoint_id: str, coder: str) -> dict[str, Any]:
    settings = request.app.state.settings
    with request.app.state.db.read() as session:
        row = checkpoints.get_checkpoint(session, checkpoint_id)
        run = runs.get_run(session, row.run_id)
        found = hub.list_pushes(session, checkpoint_id)
    files = checkpoints.files(settings, row)
    coders = checkpoints.coders(settings, row)
    chosen = coder if coder in coders else (coders[0] if coders else "")
    inspection, problem = _inspection(settings, row, chosen)
    return {
        "nav": "runs",
        "checkpoint": row,
        "run": run,
        "view": RunView(run),
        "coders": coders,
        "coder": chosen,
        "files": files,
        "tile_groups": _tile_groups(row.evaluation.get(chosen, {}), inspection),
        "config_groups": config_groups(run.config),
        "inspection": inspection,
        "inspection_problem": problem,
        "pushes": found,
        "push": {"repo_id": "", "private": True, "suggestion": _slug(run.name)},
        "has_hub_token": settings.hf_token is not None,
    }


def _tile_groups(evaluation: dict[str, Any], inspection: "Inspection | None") -> list[tuple[str, list[Tile]]]:
    """Tiles by heading; groups without a tile are left out."""
    reconstruction: list[Tile] = []
    downstream: list[Tile] = []
    for name, value in evaluation.items():
        if name in METRICS:
            known = METRICS[name]
            form = metric_form(name, known.unit)
            unit = "" if form == "percent" else known.unit
            group = downstream if known.downstream else reconstruction
            group.append(Tile(known.label, known.help, known.formula, metric(value, form), unit))
    if reconstruction and inspection is not None:
        text = count(inspection.num_tokens)
        help_text = "Tokens that the reconstruction was measured on."
        reconstruction.append(Tile("Held-out tokens", help_text, "tokens.v1", text, ""))
    groups = [("Reconstruction", reconstruction), ("Predictions with the reconstruction spliced in", downstream)]
    return [group for group in groups if group[1]]


def _histograms(inspection: "Inspection", latent: int) -> dict[str, Any]:
    """Both histograms, with a mark where the shown latent stands."""
    density, norm = float(inspection.firing_frac[latent]), float(inspection.decoder_norm[latent])
    return {
        "density": density_histogram(inspection.firing_frac.tolist(), density or None),
        "norms": linear_histogram(inspection.decoder_norm.tolist(), norm),
    }


def _natural(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _inspection(settings: Any, row: Any, coder: str) -> "tuple[Inspection | None, str]":
    try:
        return checkpoints.inspection(settings, row, coder), ""
    except CheckpointError as error:
        text = str(error)
        return None, f"{text[:1].upper()}{text[1:]}."


def _slug(name: str) -> str:
    """A run's name as a repository name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "sparse-coder"
