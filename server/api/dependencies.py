"""What endpoints share: strict JSON bodies, strict query parameters, database sessions.

What does not ask the database is a coroutine, though it waits for nothing: FastAPI takes plain functions to another
thread, which for a short answer costs more than all of its work. It keeps a thread for the end of a session, which must
not wait for one of those that wait for its connection.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Header, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import ParamTypes
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlmodel import Session

from server.db.session import Database
from server.errors import FieldProblem, InvalidError, UnsupportedMediaError
from server.settings import Settings

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Body(Generic[M]):
    """A validated body and the fingerprint of its bytes."""

    value: M
    sha256: str


def json_body(model: type[M]) -> Callable[[Request], Awaitable[Body[M]]]:
    """A dependency that reads a JSON body strictly: `"10"`, `1.0` and `true` are no integers, NaN is no number."""

    async def read(request: Request) -> Body[M]:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise UnsupportedMediaError("Send the body as application/json.")
        raw = await request.body()
        return Body(model.model_validate_json(raw, strict=True), hashlib.sha256(raw).hexdigest())

    return read


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of an endpoint that reads its body through `json_body`."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def _single(request: Request) -> None:
    """A parameter given twice is refused: which one counts would be a guess."""
    names = [name for name, _ in request.query_params.multi_items() if name not in ("key", "run")]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        problems = [FieldProblem(("query", name), "given more than once", "repeated") for name in twice]
        raise InvalidError(f"{', '.join(twice)}: given more than once.", errors=problems)


_parameters: dict[Callable[..., Any], list[str]] = {}
"""Names of query parameters by endpoint, found once: to look for them takes as long as a short answer."""


def _parameters_of(route: APIRoute) -> list[str]:
    if route.endpoint not in _parameters:
        fields = get_flat_params(route.dependant)
        of_query = [field for field in fields if getattr(field.field_info, "in_", None) is ParamTypes.query]
        _parameters[route.endpoint] = [field.alias for field in of_query]
    return _parameters[route.endpoint]


async def _known(request: Request) -> None:
    """A parameter that the route does not have is refused: misspelt, it would find and change the wrong things."""
    known = _parameters_of(request.scope["route"])
    unknown = sorted(name for name in request.query_params if name not in known)
    if unknown:
        problems = [FieldProblem(("query", name), "no parameter of this request", "unknown") for name in unknown]
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise InvalidError(f"{', '.join(unknown)}: no parameter of this request, {takes}.", errors=problems)


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def _read(request: Request) -> Iterator[Session]:
    database: Database = request.app.state.db
    with database.read() as session:
        yield session


async def _database(request: Request) -> Database:
    database: Database = request.app.state.db
    return database


SingleQuery = Depends(_single)
KnownQuery = Depends(_known)
SettingsDep = Annotated[Settings, Depends(_settings)]
DatabaseDep = Annotated[Database, Depends(_database)]
IfMatch = Annotated[str | None, Header(max_length=200)]
ReadSession = Annotated[Session, Depends(_read, scope="function")]
