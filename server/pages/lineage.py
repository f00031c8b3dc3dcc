"""The tree of a run's parents and children on its page."""

from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlencode

from sqlmodel import Session

from server.db.tables import Run, Sweep
from server.pages import forms
from server.pages.formatting import count, metric
from server.pages.forms import Change
from server.pages.views import RunView
from server.services import forks, lineage
from server.services.headline import headline
from server.services.lineage import Kin
from server.services.requests import launch_values


class Node(NamedTuple):
    """A run of the tree."""

    view: RunView
    how: str
    """How it came of the run above it, in words."""
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


def family_of(session: Session, run: Run) -> Tree | None:
    """None of a run that belongs to nothing and that nothing came of."""
    found = lineage.family(session, run)
    if len(found.runs) == 1 and found.sweep is None:
        return None
    ids = [one.id for one in found.runs]
    compare = "/compare?" + urlencode({"run": ids}, doseq=True) if len(ids) > 1 else ""
    return Tree(_node(found.root, None, run.id), found.sweep, found.num_swept, found.has_more, compare)


def differences(origin: Run, run: Run) -> list[Change]:
    """What `run` was asked for with otherwise than `origin`, but for its name."""
    before, after = (
        forms.values_of(one.config | forks.NOT_FORKED, **launch_values(one) | {"name": ""}) for one in (origin, run)
    )
    return forms.changes(before, after)


def _node(kin: Kin, above: Run | None, here: str) -> Node:
    run = kin.run
    return Node(
        view=RunView(run),
        how=_how(kin),
        fvu=metric(headline(run.latest)["fvu"], "ratio"),
        changes=differences(above, run) if above else [],
        is_here=run.id == here,
        children=[_node(child, run, here) for child in kin.children],
    )


def _how(kin: Kin) -> str:
    if kin.how != "fork":
        return kin.how or ""
    kept = "" if kin.run.config.get("finetune_state") else ", weights alone"
    return f"fork of step {count(kin.run.forked_step)}{kept}"
