"""`/api/v1/pushes`: uploads to the Hugging Face Hub."""

from fastapi import APIRouter

from server.api.dependencies import ReadSession, SingleQuery
from server.api.models import PushList, PushOut
from server.services import hub

router = APIRouter(prefix="/pushes", tags=["pushes"], dependencies=[SingleQuery])


@router.get("")
def list_pushes(session: ReadSession) -> PushList:
    """The newest hundred pushes."""
    return PushList(items=[PushOut.model_validate(row) for row in hub.list_pushes(session)])


@router.get("/{push_id}")
def get_push(session: ReadSession, push_id: str) -> PushOut:
    """One push: `running`, `completed` with its address, or `failed` with the reason."""
    return PushOut.model_validate(hub.get_push(session, push_id))
