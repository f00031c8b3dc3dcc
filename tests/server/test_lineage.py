"""The tree of a run's parents and children, on both engines."""

import re

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import Session

from rows import add_run
from server.db.session import Database
from server.db.tables import Run, Sweep
from server.services import lineage
from server.services.lineage import Kin
from sparsify_core.config import RunConfig


def shape(kin: Kin) -> tuple[str, str | None, list[object]]:
    return kin.run.name, kin.how, [shape(child) for child in kin.children]


def add_family(session: Session) -> dict[str, Run]:
    """A run of a sweep, a fork of it, that one's retry, clone and fork, and a cousin."""
    sweep = Sweep(name="widths", spec={"axes": []})
    session.add(sweep)
    session.flush()
    root = add_run(session, name="root", sweep_id=sweep.id)
    add_run(session, name="sibling", sweep_id=sweep.id)
    changed = RunConfig(model="owner/model", dataset="owner/data", hookpoints=["layers.5"], lr=0.002)
    config = changed.model_dump(mode="json")
    fork = add_run(session, name="fork", forked_from=root.id, forked_step=1500, config=config)
    add_run(session, name="cousin", cloned_from=root.id)
    clone = add_run(session, name="clone", cloned_from=fork.id, config=config)
    retry = add_run(session, name="retry", retry_of=fork.id, config=config)
    add_run(session, name="grandchild", forked_from=retry.id, forked_step=9)
    return {"root": root, "fork": fork, "clone": clone, "retry": retry}


def test_a_run_has_its_parents_in_one_line_and_its_children(database: Database) -> None:
    with database.write() as session:
        made = add_family(session)
        found = lineage.family(session, made["fork"])
        children = sorted([("clone", "clone", []), ("retry", "retry", [])])
        assert shape(found.root)[:2] == ("root", None)
        (fork,) = found.root.children
        assert (fork.run.name, fork.how, sorted(map(shape, fork.children))) == ("fork", "fork", children)
        assert found.sweep is not None
        assert (found.sweep.name, found.num_swept, found.has_more) == ("widths", 2, False)
        assert {run.name for run in found.runs} == {"root", "fork", "clone", "retry"}
        for _ in range(20):
            add_run(session, cloned_from=made["fork"].id)
        found = lineage.family(session, made["fork"])
        assert (len(found.runs), found.has_more) == (22, True)


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_the_page_shows_the_tree(app: FastAPI, visitor: TestClient) -> None:
    with app.state.db.write() as session:
        made = {name: run.id for name, run in add_family(session).items()}
        alone = add_run(session).id
    page = visitor.get(f"/runs/{made['clone']}").text
    tree = page[page.index('id="lineage-title"') : page.index('id="checkpoints-title"')]
    shown = "sweep widths 2 runs root Queued fork of step 1,500, weights alone fork Queued"
    assert f"{shown} lr none → 0.002 clone clone Queued" in words(tree)
    assert f"/compare?run={made['root']}&amp;run={made['fork']}&amp;run={made['clone']}" in tree
    assert '<strong aria-current="true">clone</strong>' in tree
    assert "Lineage" not in visitor.get(f"/runs/{alone}").text
