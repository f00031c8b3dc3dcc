"""Where forks stand beside the runs that they come from. No database."""

from typing import Any

from server.db.tables import Run
from server.services.lineage import Before, Branch, before, branches


def run(run_id: str, parent: str | None = None, step: int | None = None, *, keeps: bool = False, **values: Any) -> Run:
    config = {"finetune_state": keeps}
    return Run(id=run_id, name=run_id, config=config, forked_from=parent, forked_step=step, **values)


def test_a_fork_begins_where_it_branches_off() -> None:
    """With the optimizer's state it counts steps on; from the weights alone it counts from 0 again."""
    family = [
        run("late", "weights", 5, keeps=True, tokens_per_step=30),
        run("weights", "root", 20, tokens_per_step=30),
        run("state", "root", 10, keeps=True, tokens_per_step=100),
        run("root", "elsewhere", 7, tokens_per_step=100),
        run("later", "late", 6, tokens_per_step=1),
    ]
    assert branches(family) == {
        "late": Branch("weights", 5),
        "weights": Branch("root", 20),
        "state": Branch("root", 10),
        "later": Branch("late", 6),
    }
    assert before(family) == {
        "root": Before(),
        "state": Before(),
        "weights": Before(20, 2000),
        "late": Before(20, 2000),
        "later": Before(26, 2180),
    }
    assert before(family[:1]) == {"late": Before()}
