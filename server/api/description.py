"""What the OpenAPI description says of all operations alike: who may call them, and how they refuse."""

from typing import Any

from server.api.models import ProblemDetail

PROBLEM = {"model": ProblemDetail, "description": "What was wrong, as RFC 9457 has it."}
"""The `default` response of every operation."""

_TOKEN = {"type": "http", "scheme": "bearer", "description": "A token from the settings page: `sb_...`."}


def complete(schema: dict[str, Any]) -> dict[str, Any]:
    """Add what FastAPI cannot be told: the tokens, which `Guard` reads before any route, and the type of refusals.

    Changes `schema`, and leaves one that is complete as it is.
    """
    schema["components"]["securitySchemes"] = {"token": _TOKEN}
    schema["security"] = [{"token": []}]
    for path in schema["paths"].values():
        for operation in path.values():
            content = operation["responses"]["default"]["content"]
            operation["responses"]["default"]["content"] = {"application/problem+json": next(iter(content.values()))}
    return schema
