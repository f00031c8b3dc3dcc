"""What the form asks for as a request to the REST API, as a call of curl."""

import json
import shlex
from typing import Any

from server.db.tables import Checkpoint, Run
from server.services.forks import NOT_FORKED
from server.services.notation.reading import NotationError, Problem, given, nested
from server.services.requests import RunRequest, launch_values
from server.services.sweep_spec import SweepRequest
from sparsify_core.config import RunConfig
from sparsify_core.config.continuation import changed, flat


def to_request(config: RunConfig, *, url: str, **launch: Any) -> str:
    """`POST /api/v1/runs`; the token comes from the environment.

    Args:
        url: where the server answers, without a slash at its end.
        launch: fields of `RunRequest` besides the configuration; those that are None or empty are left out.
    """
    return _call(url, "runs", _run(config, launch))


def to_sweep_request(sweep: SweepRequest, *, url: str) -> str:
    """`POST /api/v1/sweeps`."""
    base = _run(sweep.base.config, sweep.base.model_dump(mode="json", exclude={"config"}, exclude_defaults=True))
    axes = [axis.model_dump(mode="json", exclude_defaults=True) for axis in sweep.axes]
    draws = sweep.model_dump(mode="json", include={"draws", "seed"}, exclude_defaults=True)
    return _call(url, "sweeps", {"base": base, "axes": axes, **draws})


def to_fork_request(checkpoint: Checkpoint, parent: Run, wanted: RunRequest, *, url: str) -> str:
    """`POST /api/v1/checkpoints/{id}/fork`.

    Args:
        parent: the checkpoint's run.

    Raises NotationError where the fork is to run elsewhere than its parent, which only the form can say.
    """
    asked = wanted.model_dump(mode="json")
    elsewhere = [name for name, value in launch_values(parent).items() if name != "name" and asked[name] != value]
    if elsewhere:
        names = ", ".join(elsewhere)
        raise NotationError(Problem(f"a fork over the API has its parent's {names}: queue this one from the form"))
    before = RunConfig.model_validate(parent.config | NOT_FORKED).model_dump(mode="json")
    values = flat(asked["config"])
    changes = {name: values[name] for name in changed(before, asked["config"])}
    return _call(url, f"checkpoints/{checkpoint.id}/fork", {"name": wanted.name, "changes": changes})


def _run(config: RunConfig, launch: dict[str, Any]) -> dict[str, Any]:
    return given(launch) | {"config": nested(config)}


def _call(url: str, path: str, body: dict[str, Any]) -> str:
    text = shlex.quote(json.dumps(body, indent=2, ensure_ascii=False))
    return (
        f"curl -X POST {shlex.quote(f'{url}/api/v1/{path}')} \\\n"
        '  -H "Authorization: Bearer $TOKEN" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {text}\n"
    )
