"""Notices: who is told what, and the rules that watch runs. `/notices`."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import ValidationError
from starlette.datastructures import FormData

from server.auth import CurrentUser
from server.errors import ConflictError, InvalidError, NotCurrentError, NotFoundError
from server.notices.acting import ACTIONS
from server.notices.key import signing_key
from server.notices.message import EVENTS, USUAL_EVENTS, watchable
from server.notices.replay import BEST, replay
from server.notices.rules import etag, in_words, rules
from server.pages.templating import is_partial, render
from server.services import channels, watch_rules
from server.services.amounts import amount
from server.services.channels import ChannelRequest
from server.services.watch_rules import WatchRuleChange, WatchRuleRequest
from sparsify_core.metrics import METRICS

router = APIRouter(prefix="/notices")

NEW_RULE = {"metric": "fvu", "above": "true", "action": "notify", "runs": "*", "value": "", "from_tokens": "0"}
"""What the form for a rule begins with."""

_EDITED = ("edit", "version")
"""Which rule the form changes, and what it said when the form was opened."""


@router.get("")
def page(request: Request, user: CurrentUser) -> HTMLResponse:
    """All channels and rules, a rule that is being edited, and what one that was tried would have done; for htmx the
    channels alone, whose deliveries come along.
    """
    if is_partial(request):
        return render(request, "notices/_channels.html", _channels(request), user=user)
    if "try" in request.query_params:
        return _try_rule(request, user, request.query_params)
    if "edit" in request.query_params:
        return _edit_rule(request, user, request.query_params["edit"])
    return _page(request, user)


@router.post("/channels")
async def create_channel(request: Request, user: CurrentUser) -> HTMLResponse:
    """Make a channel and show its signing key, this once."""
    return await run_in_threadpool(_create_channel, request, user, await request.form())


def _create_channel(request: Request, user: Any, form: FormData) -> HTMLResponse:
    typed = {"kind": form.get("kind"), "target": form.get("target"), "events": form.getlist("events")}
    try:
        wanted = ChannelRequest.model_validate(typed)
        with request.app.state.db.write() as session:
            channel = channels.create_channel(session, wanted, settings=request.app.state.settings)
    except (ValidationError, InvalidError, ConflictError) as error:
        return _page(request, user, status=422, channel=typed, channel_error=_sentence(error))
    key = signing_key(request.app.state.settings.data_dir, channel.id) if channel.kind == "webhook" else ""
    return _page(request, user, new_channel=channel, new_key=key)


@router.post("/channels/{channel_id}/test")
def send_test(request: Request, user: CurrentUser, channel_id: str) -> Response:
    """Have a test sent."""
    with request.app.state.db.write() as session:
        channels.send_test(session, channel_id)
    return RedirectResponse("/notices#channels", status_code=303)


@router.post("/channels/{channel_id}/delete")
def delete_channel(request: Request, user: CurrentUser, channel_id: str) -> Response:
    """Send nothing more there."""
    with request.app.state.db.write() as session:
        channels.delete_channel(session, channel_id)
    return RedirectResponse("/notices#channels", status_code=303)


@router.post("/rules")
async def save_rule(request: Request, user: CurrentUser) -> Response:
    """Make a rule, or change the one that `edit` names; with the button "Try it" go to where the page says what it
    would have done.
    """
    form = await request.form()
    typed = {name: value for name, value in form.items() if isinstance(value, str)}
    if "try" in typed:
        kept = {name: typed[name] for name in (*NEW_RULE, *_EDITED, "try") if name in typed}
        return RedirectResponse(f"/notices?{urlencode(kept)}#rule", status_code=303)
    return await run_in_threadpool(_save_rule, request, user, typed)


def _save_rule(request: Request, user: Any, typed: Mapping[str, str]) -> Response:
    try:
        wanted = _rule(typed)
        with request.app.state.db.write() as session:
            if "edit" in typed:
                change = WatchRuleChange.model_validate(wanted.model_dump())
                watch_rules.change_rule(session, typed["edit"], change, if_match=typed.get("version"))
            else:
                watch_rules.create_rule(session, wanted)
    except (NotCurrentError, NotFoundError):
        return _overtaken(request, user, typed)
    except (ValidationError, InvalidError, ConflictError) as error:
        return _page(request, user, status=422, rule=typed, rule_error=_sentence(error))
    return RedirectResponse("/notices#rules", status_code=303)


def _overtaken(request: Request, user: Any, typed: Mapping[str, str]) -> HTMLResponse:
    """What was typed, beside what the rule says by now; saving once more overwrites that. One that is gone is new."""
    try:
        with request.app.state.db.read() as session:
            now = watch_rules.get_rule(session, typed["edit"])
    except NotFoundError:
        new = {name: value for name, value in typed.items() if name not in _EDITED}
        problem = "Somebody has deleted the rule meanwhile. Add it anew to have it as below."
        return _page(request, user, status=422, rule=new, rule_error=problem)
    says = f"{in_words(now)} → {now.action}, runs like {now.runs}"
    problem = f"Somebody has changed the rule meanwhile to: {says}. Save again to have it as below."
    return _page(request, user, status=422, rule={**typed, "version": etag(now)}, rule_error=problem)


def _edit_rule(request: Request, user: Any, rule_id: str) -> HTMLResponse:
    """The form with what a rule says now."""
    with request.app.state.db.read() as session:
        rule = watch_rules.get_rule(session, rule_id)
    typed = {
        "metric": rule.metric,
        "above": "true" if rule.above else "false",
        "value": str(rule.value),
        "from_tokens": f"{rule.from_tokens:,}",
        "action": rule.action,
        "runs": rule.runs,
        "edit": rule.id,
        "version": etag(rule),
    }
    return _page(request, user, rule=typed)


def _try_rule(request: Request, user: Any, typed: Mapping[str, str]) -> HTMLResponse:
    try:
        rule = watch_rules.make_rule(_rule(typed))
    except (ValidationError, InvalidError) as error:
        return _page(request, user, status=422, rule=typed, rule_error=_sentence(error))
    with request.app.state.db.read() as session:
        tried = replay(session, rule)
    return _page(request, user, rule=typed, tried=tried, tried_words=in_words(rule), num_compared=BEST)


def _rule(typed: Mapping[str, str]) -> WatchRuleRequest:
    """A rule as it was typed, `20M` and `40%` too. Raises ValidationError."""
    fields: dict[str, Any] = {name: typed.get(name, "").strip() for name in NEW_RULE}
    for name in ("value", "from_tokens"):
        number = amount(fields[name])
        fields[name] = fields[name] if number is None else number
    return WatchRuleRequest.model_validate(fields)


@router.post("/rules/{rule_id}/delete")
def delete_rule(request: Request, user: CurrentUser, rule_id: str) -> Response:
    """Watch for this no more."""
    with request.app.state.db.write() as session:
        watch_rules.delete_rule(session, rule_id)
    return RedirectResponse("/notices#rules", status_code=303)


def _sentence(error: ValidationError | InvalidError | ConflictError) -> str:
    """The first thing that is wrong."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{first['loc'][0]}: {first['msg']}." if first["loc"] else first["msg"]
    return error.errors[0].msg if error.errors else error.detail


def _channels(request: Request) -> dict[str, Any]:
    with request.app.state.db.read() as session:
        rows = [(row, channels.recent(session, row.id)) for row in channels.list_channels(session)]
    return {"channels": rows, "says": EVENTS}


def _page(request: Request, user: Any, *, status: int = 200, **more: Any) -> HTMLResponse:
    with request.app.state.db.read() as session:
        watching = [(row, in_words(row)) for row in rules(session)]
    context = {
        "nav": "settings",
        "rules": watching,
        "metrics": [METRICS[name] for name in watchable()],
        "actions": ACTIONS,
        "has_mail": request.app.state.settings.smtp_url is not None,
        "channel": {"kind": "webhook", "target": "", "events": USUAL_EVENTS},
        "usual": USUAL_EVENTS,
        "rule": NEW_RULE,
    }
    return render(request, "notices/page.html", context | _channels(request) | more, user=user, status=status)
