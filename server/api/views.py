"""`/api/v1/views`: views of the list of runs that people keep."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from server.api.dependencies import Body, DatabaseDep, ReadSession, SingleQuery, body_schema, json_body
from server.api.models import ViewList, ViewOut
from server.services import saved_views
from server.services.changes import Change
from server.services.saved_views import plain_query, view_name

router = APIRouter(prefix="/views", tags=["views"], dependencies=[SingleQuery])


Name = Annotated[str, Field(min_length=1, max_length=60), AfterValidator(view_name)]
Query = Annotated[str, Field(max_length=2000), AfterValidator(plain_query)]


class ViewRequest(BaseModel):
    """A view to keep."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: Name
    query: Query
    """Query string of the page /runs, for example `q=tag:paper&sort=fvu`."""


class ViewChange(Change):
    """What can be changed about a view; what is left out stays."""

    name: Name | None = None
    query: Query | None = None


ViewBody = Annotated[Body[ViewRequest], Depends(json_body(ViewRequest))]
ChangeBody = Annotated[Body[ViewChange], Depends(json_body(ViewChange))]


@router.get("")
def list_views(session: ReadSession) -> ViewList:
    """All kept views, by name."""
    return ViewList(items=[ViewOut.model_validate(row) for row in saved_views.list_views(session)])


@router.post("", status_code=201, openapi_extra=body_schema(ViewRequest))
def save_view(body: ViewBody, database: DatabaseDep) -> ViewOut:
    """Keep a view under a name that no other has."""
    with database.write() as session:
        return ViewOut.model_validate(saved_views.save_view(session, body.value.name, body.value.query))


@router.patch("/{view_id}", openapi_extra=body_schema(ViewChange))
def change_view(view_id: str, body: ChangeBody, database: DatabaseDep) -> ViewOut:
    """Give a view another name, or let it show something else under the one that it has."""
    with database.write() as session:
        changed = saved_views.change_view(session, view_id, **body.value.model_dump())
        return ViewOut.model_validate(changed)


@router.delete("/{view_id}", status_code=204)
def delete_view(view_id: str, database: DatabaseDep) -> None:
    """Forget a view; the runs that it shows stay."""
    with database.write() as session:
        saved_views.delete_view(session, view_id)
