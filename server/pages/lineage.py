"""The tree of a run's parents and children on its page."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlmodel import Session

from server.auth import CurrentUser
from server.db.tables import Run, Sweep
from server.numbers import count, metric
from server.pages.formatting import plain
from server.pages.forms import Change
from server.pages.templating import render
from server.pages.views import RunView
from server.services import lineage, runs
from server.services.headline import headline
from server.services.lineage import Kin

router = APIRouter()
SHOWN = 20
"""So many of those that came of a run are shown."""


class Node(NamedTuple):
    """A run of the tree."""

    view: RunView
    how: str
    """How it came of the run above it, in words."""
    checkpoint_id: str | None
    """What it starts from."""
    fvu: str
    changes: list[Change]
    """What it was asked for with otherwise than the run above it."""
    is_here: bool
    """Whether it is the page's own."""
    children: list["Node"]


@dataclass(frozen=True)
class Tree:
    """What `run/_lineage.html` shows."""

    root: Node
    sweep: Sweep | None
    num_swept: int
    has_more: bool
    compare: str
    """Address of all of these runs side by side; empty when there is one alone."""


@router.get("/runs/{run_id}/lineage")
def region(request: Request, user: CurrentUser, run_id: str) -> HTMLResponse:
    """The tree alone."""
    with request.app.state.db.read() as session:
        run = runs.get_run(session, run_id)
        context = {"view": RunView(run), "family": family_of(session, run)}
    return render(request, "run/_lineage.html", context, user=user)


def family_of(session: Session, run: Run) -> Tree | None:
    """None of a run that belongs to nothing and that nothing came of."""
    found = lineage.family(session, run, limit=SHOWN)
    if len(found.runs) == 1 and found.sweep is None:
        return None
    ids = [one.id for one in found.runs]
    compare = "/compare?" + urlencode({"run": ids}, doseq=True) if len(ids) > 1 else ""
    return Tree(_node(found.root, run.id), found.sweep, found.num_swept, found.has_more, compare)


def in_words(changes: Iterable[lineage.Change]) -> list[Change]:
    """As the launch form calls the fields and writes their values."""
    return [
        Change(name.rpartition(".")[2], plain(before, "none"), plain(after, "none")) for name, before, after in changes
    ]


def _node(kin: Kin, here: str) -> Node:
    return Node(
        view=RunView(kin.run),
        how=_how(kin),
        checkpoint_id=kin.checkpoint_id,
        fvu=metric(headline(kin.run.latest)["fvu"], "ratio"),
        changes=in_words(kin.changes),
        is_here=kin.run.id == here,
        children=[_node(child, here) for child in kin.children],
    )


def _how(kin: Kin) -> str:
    if kin.how != "fork":
        return kin.how or ""
    kept = "" if kin.run.config.get("finetune_state") else ", weights alone"
    return f"fork of step {count(kin.run.forked_step)}{kept}"
