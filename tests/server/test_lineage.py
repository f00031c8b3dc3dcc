"""The tree of a run's parents and children, on both engines."""

import re

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlmodel import Session

from rows import add_checkpoint, add_run
from server.db.session import Database
from server.db.tables import Run, Sweep
from server.services import lineage
from server.services.lineage import Kin
from server.settings import Settings
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
        found = lineage.family(session, made["fork"], limit=20)
        children = sorted([("clone", "clone", []), ("retry", "retry", [("grandchild", "fork", [])])])
        assert shape(found.root)[:2] == ("root", None)
        (fork,) = found.root.children
        assert (fork.run.name, fork.how, sorted(map(shape, fork.children))) == ("fork", "fork", children)
        assert found.sweep is not None
        assert (found.sweep.name, found.num_swept, found.has_more) == ("widths", 2, False)
        assert {run.name for run in found.runs} == {"root", "fork", "clone", "retry", "grandchild"}
        for _ in range(20):
            add_run(session, cloned_from=made["fork"].id)
        found = lineage.family(session, made["fork"], limit=20)
        assert (len(found.runs), found.has_more) == (22, True)


def test_the_lineage_is_told_over_rest(app: FastAPI, api: TestClient, settings: Settings) -> None:
    with app.state.db.write() as session:
        made = {name: run.id for name, run in add_family(session).items()}
        checkpoint_id = add_checkpoint(session, settings, session.get_one(Run, made["root"]), step=1500).id
    found = api.get(f"/api/v1/runs/{made['fork']}/lineage").json()
    assert found["sweep"]["num_runs"] == 2
    assert [(kin["id"], kin["parent"], kin["how"]) for kin in found["ancestors"]] == [(made["root"], None, None)]
    assert found["run"] == {
        "id": made["fork"],
        "name": "fork",
        "state": "queued",
        "parent": made["root"],
        "how": "fork",
        "forked_step": 1500,
        "checkpoint_id": checkpoint_id,
        "finetune_state": False,
        "changes": [{"field": "lr", "before": None, "after": 0.002}],
    }
    below = [(kin["name"], kin["parent"], kin["how"], kin["checkpoint_id"]) for kin in found["descendants"]]
    grandchild = ("grandchild", made["retry"], "fork", None)
    assert sorted(below) == [("clone", made["fork"], "clone", None), grandchild, ("retry", made["fork"], "retry", None)]
    assert below.index(grandchild) == [name for name, *_ in below].index("retry") + 1
    assert not found["has_more"]
    few = api.get(f"/api/v1/runs/{made['root']}/lineage", params={"limit": 1}).json()
    assert (few["ancestors"], len(few["descendants"]), few["has_more"]) == ([], 1, True)
    assert api.get("/api/v1/runs/nothing/lineage").status_code == 404


def test_what_people_asked_for_otherwise_is_told_and_nothing_else() -> None:
    old = RunConfig(hookpoints=["layers.5"], sae={"k": 16}).model_dump(mode="json")
    del old["optimizer"]  # stored before the field existed
    new = RunConfig(hookpoints=["layers.5", "layers.7"], sae={"k": 64}, finetune="/a/checkpoint").model_dump(
        mode="json"
    )
    run = Run(name="b", config=new, num_processes=2, labels=["a100"])
    assert [tuple(change) for change in lineage.changes(Run(name="a", config=old), run)] == [
        ("num_processes", 1, 2),
        ("labels", [], ["a100"]),
        ("sae.k", 16, 64),
        ("hookpoints", ["layers.5"], ["layers.5", "layers.7"]),
    ]


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
    region = visitor.get(f"/runs/{made['clone']}/lineage").text
    assert region in page
    assert "lineage-title" not in visitor.get(f"/runs/{made['clone']}/lists").text  # a new checkpoint leaves it alone
    assert "lineage-title" not in visitor.get(f"/runs/{alone}/lineage").text
