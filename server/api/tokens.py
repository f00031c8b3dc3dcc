"""`/api/v1/tokens`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from server.api.dependencies import Body, DatabaseDep, ReadSession, SingleQuery, body_schema, json_body
from server.api.models import NewTokenOut, TokenList, TokenOut
from server.services import tokens

router = APIRouter(prefix="/tokens", tags=["tokens"], dependencies=[SingleQuery])


class TokenRequest(BaseModel):
    """A token to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=100)]


@router.get("")
def list_tokens(session: ReadSession) -> TokenList:
    """All tokens, without their secrets."""
    return TokenList(items=[TokenOut.model_validate(row) for row in tokens.list_tokens(session)])


@router.post("", status_code=201, openapi_extra=body_schema(TokenRequest))
def create_token(
    response: Response,
    body: Annotated[Body[TokenRequest], Depends(json_body(TokenRequest))],
    database: DatabaseDep,
) -> NewTokenOut:
    """Make a token. Its secret is in this answer and nowhere else."""
    with database.write() as session:
        row, secret = tokens.create_token(session, body.value.name)
    response.headers["Location"] = f"/api/v1/tokens/{row.id}"
    return NewTokenOut(**TokenOut.model_validate(row).model_dump(), token=secret)


@router.delete("/{token_id}")
def revoke_token(token_id: str, database: DatabaseDep) -> TokenOut:
    """Revoke a token. Idempotent."""
    with database.write() as session:
        return TokenOut.model_validate(tokens.revoke_token(session, token_id))
