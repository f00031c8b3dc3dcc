"""What requests that change a part of something share: their bodies, and whose words they may overwrite."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

from server.errors import NotCurrentError


class Change(BaseModel):
    """Fields to be changed; what is left out stays, and something must be given."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if all(value is None for value in self.model_dump().values()):
            raise ValueError(f"give at least one of {', '.join(type(self).model_fields)}")
        return self


def etag_of(says: Sequence[Any]) -> str:
    """Names what stands somewhere: it changes when that does."""
    return f'"{hashlib.sha256(json.dumps(says).encode()).hexdigest()[:16]}"'


def require_current(if_match: str | None, etag: str, noun: str) -> None:
    """Raises NotCurrentError: `if_match` names what stood there before somebody changed the `noun`."""
    if if_match not in (None, "*", etag):
        raise NotCurrentError(f"Somebody has changed the {noun} meanwhile: load it again and repeat your change.")
