"""`/api/v1/channels` and `/api/v1/watch-rules`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict

from server.api.dependencies import (
    Body,
    DatabaseDep,
    IfMatch,
    ReadSession,
    SettingsDep,
    SingleQuery,
    body_schema,
    json_body,
)
from server.notices.key import signing_key
from server.notices.replay import replay
from server.notices.rules import etag, rules
from server.services import channels, watch_rules
from server.services.channels import ChannelRequest
from server.services.watch_rules import WatchRuleChange, WatchRuleRequest

router = APIRouter(tags=["notices"], dependencies=[SingleQuery])

ChannelBody = Annotated[Body[ChannelRequest], Depends(json_body(ChannelRequest))]
RuleBody = Annotated[Body[WatchRuleRequest], Depends(json_body(WatchRuleRequest))]
RuleChangeBody = Annotated[Body[WatchRuleChange], Depends(json_body(WatchRuleChange))]


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class DeliveryOut(_Out):
    """One notice on its way to a channel."""

    event_id: int
    state: str
    tries: int
    message: str
    created_at: float
    sent_at: float | None


class ChannelOut(_Out):
    """Where notices go."""

    id: str
    kind: str
    target: str
    events: list[str]
    created_at: float


class NewChannelOut(ChannelOut):
    """A channel and the key that signs what is sent to it."""

    signing_key: str


class ChannelList(BaseModel):
    items: list[ChannelOut]


class DeliveryList(BaseModel):
    items: list[DeliveryOut]


class WatchRuleOut(_Out):
    """A rule that watches runs."""

    id: str
    metric: str
    above: bool
    value: float
    from_tokens: int
    action: str
    runs: str
    created_at: float


class WatchRuleList(BaseModel):
    items: list[WatchRuleOut]


class StoppedOut(BaseModel):
    """A run of the past on which a rule would have acted."""

    run_id: str
    name: str
    step: int
    value: float
    fvu: float | None
    saved_s: float
    is_best: bool


class ReplayOut(BaseModel):
    """What a rule would have done: the device seconds that it saves, and how many of the best runs it hits."""

    num_runs: int
    saved_s: float
    num_best: int
    stopped: list[StoppedOut]


@router.get("/channels")
def list_channels(session: ReadSession) -> ChannelList:
    """All channels, the oldest first."""
    return ChannelList(items=[ChannelOut.model_validate(row) for row in channels.list_channels(session)])


@router.post("/channels", status_code=201, openapi_extra=body_schema(ChannelRequest))
def create_channel(
    response: Response, body: ChannelBody, database: DatabaseDep, settings: SettingsDep
) -> NewChannelOut:
    """Make a channel. Its signing key is in this answer and nowhere else."""
    with database.write() as session:
        row = channels.create_channel(session, body.value, settings=settings)
    response.headers["Location"] = f"/api/v1/channels/{row.id}"
    key = signing_key(settings.data_dir, row.id)
    return NewChannelOut(**ChannelOut.model_validate(row).model_dump(), signing_key=key)


@router.get("/channels/{channel_id}/deliveries")
def list_deliveries(session: ReadSession, channel_id: str) -> DeliveryList:
    """What was sent to a channel, the newest first."""
    channels.get_channel(session, channel_id)
    rows = channels.recent(session, channel_id, limit=100)
    return DeliveryList(items=[DeliveryOut.model_validate(row) for row in rows])


@router.post("/channels/{channel_id}/test", status_code=202)
def send_test(channel_id: str, database: DatabaseDep) -> DeliveryOut:
    """Have a test sent within seconds; the channel's deliveries say what came of it."""
    with database.write() as session:
        return DeliveryOut.model_validate(channels.send_test(session, channel_id))


@router.delete("/channels/{channel_id}", status_code=204)
def delete_channel(channel_id: str, database: DatabaseDep) -> None:
    """Send nothing more to a channel."""
    with database.write() as session:
        channels.delete_channel(session, channel_id)


@router.get("/watch-rules")
def list_rules(session: ReadSession) -> WatchRuleList:
    """All rules, the oldest first."""
    return WatchRuleList(items=[WatchRuleOut.model_validate(row) for row in rules(session)])


@router.post("/watch-rules", status_code=201, openapi_extra=body_schema(WatchRuleRequest))
def create_rule(response: Response, body: RuleBody, database: DatabaseDep) -> WatchRuleOut:
    """Have runs watched, those that train now too."""
    with database.write() as session:
        row = watch_rules.create_rule(session, body.value)
    response.headers["Location"] = f"/api/v1/watch-rules/{row.id}"
    return WatchRuleOut.model_validate(row)


@router.post("/watch-rules/dry-run", openapi_extra=body_schema(WatchRuleRequest))
def dry_run(session: ReadSession, body: RuleBody) -> ReplayOut:
    """What the rule would have done to the runs of the past. Changes nothing."""
    done = replay(session, watch_rules.make_rule(body.value))
    stopped = [
        StoppedOut(
            run_id=one.run.id,
            name=one.run.name,
            step=one.step,
            value=one.value,
            fvu=one.fvu,
            saved_s=one.saved_s,
            is_best=one.is_best,
        )
        for one in done.stopped
    ]
    return ReplayOut(num_runs=done.num_runs, saved_s=done.saved_s, num_best=done.num_best, stopped=stopped)


@router.get("/watch-rules/{rule_id}")
def get_rule(response: Response, session: ReadSession, rule_id: str) -> WatchRuleOut:
    """One rule. Its `ETag` names what it says; send it as `If-Match` with a PATCH."""
    row = watch_rules.get_rule(session, rule_id)
    response.headers["ETag"] = etag(row)
    return WatchRuleOut.model_validate(row)


@router.patch("/watch-rules/{rule_id}", openapi_extra=body_schema(WatchRuleChange))
def change_rule(
    rule_id: str,
    response: Response,
    body: RuleChangeBody,
    database: DatabaseDep,
    if_match: IfMatch = None,
) -> WatchRuleOut:
    """Change a rule in place: it then is as a new one, and may act again on a run on which it has acted. With
    `If-Match` only if nobody else has changed it meanwhile.
    """
    with database.write() as session:
        row = watch_rules.change_rule(session, rule_id, body.value, if_match=if_match)
    response.headers["ETag"] = etag(row)
    return WatchRuleOut.model_validate(row)


@router.delete("/watch-rules/{rule_id}", status_code=204)
def delete_rule(rule_id: str, database: DatabaseDep) -> None:
    """Watch for this no more."""
    with database.write() as session:
        watch_rules.delete_rule(session, rule_id)
