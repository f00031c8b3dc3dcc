"""What all answers of the REST API are made of. Times are Unix seconds (UTC)."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """Read from rows by attribute; what is not named here never leaves the server."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)


Value = Annotated[float | str, Field(description="A number; non-finite ones as `nan`, `inf` or `-inf`.")]


class FieldError(BaseModel):
    loc: list[str | int]
    msg: str
    code: str


class ProblemDetail(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldError]
    request_id: str


def as_json(value: Any) -> Any:
    """A value that JSON can hold: a NaN or infinite number as its name."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
