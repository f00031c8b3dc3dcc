"""The request to the REST API that queues the run, as a call of curl."""

import json
import shlex
from typing import Any

from server.services.notation.reading import nested
from sparsify_core.config import RunConfig


def to_request(config: RunConfig, *, url: str, **launch: Any) -> str:
    """`POST /api/v1/runs`; the token comes from the environment.

    Args:
        url: where the server answers, without a slash at its end.
        launch: fields of `RunRequest` besides the configuration; those that are None or empty are left out.
    """
    body = {name: value for name, value in launch.items() if value not in (None, "", [])} | {"config": nested(config)}
    text = shlex.quote(json.dumps(body, indent=2, ensure_ascii=False))
    return (
        f"curl -X POST {shlex.quote(url + '/api/v1/runs')} \\\n"
        '  -H "Authorization: Bearer $TOKEN" \\\n'
        "  -H 'Content-Type: application/json' \\\n"
        f"  -d {text}\n"
    )
