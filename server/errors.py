"""Errors of the web application, and the one place that turns every error into an answer.

Programs get RFC 9457 problem+json; browsers get the same facts as a page, or as a region when htmx asks.
"""

import errno
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from jinja2 import TemplateNotFound
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from server.db.trouble import TROUBLE, is_disk_full
from sparsify_core.errors import SparsifyError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FieldProblem:
    """What is wrong with one input. `loc` is its path, e.g. `("config", "sae", "k")`."""

    loc: tuple[str | int, ...]
    msg: str
    code: str = "invalid"

    def as_dict(self) -> dict[str, Any]:
        return {"loc": list(self.loc), "msg": self.msg, "code": self.code}


class AppError(Exception):
    """An error that is answered with `status`; `code` is stable and machine-readable, `detail` is one sentence."""

    status = 400
    code = "bad_request"

    def __init__(self, detail: str, *, code: str = "", errors: Sequence[FieldProblem] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.errors = list(errors)
        self.headers: dict[str, str] = {}


class UnauthorizedError(AppError):
    """Nobody is logged in."""

    status = 401
    code = "unauthorized"


class ForbiddenError(AppError):
    """The request may not do that: most often its CSRF token or its origin is wrong."""

    status = 403
    code = "forbidden"


class NotFoundError(AppError):
    """There is no such thing."""

    status = 404
    code = "not_found"


class ConflictError(AppError):
    """The present state does not allow it."""

    status = 409
    code = "conflict"


class NotCurrentError(AppError):
    """What was to be changed is no longer what the client saw: its `If-Match` fits no more."""

    status = 412
    code = "not_current"


class TooLargeError(AppError):
    """The body is larger than the server reads."""

    status = 413
    code = "too_large"


class UnsupportedMediaError(AppError):
    """The body is not of a type that the server reads."""

    status = 415
    code = "unsupported_media_type"


class InvalidError(AppError):
    """One or more inputs are wrong; `errors` says which and why."""

    status = 422
    code = "invalid"

    @classmethod
    def field(cls, loc: tuple[str | int, ...], msg: str, code: str = "invalid") -> "InvalidError":
        """An error of a single input."""
        return cls(msg, errors=[FieldProblem(loc, msg, code)])


class TooManyRequestsError(AppError):
    """Too many tries or streams; `Retry-After` says how long to wait."""

    status = 429
    code = "too_many_requests"

    def __init__(self, detail: str, *, retry_after_s: int) -> None:
        super().__init__(detail)
        self.headers = {"Retry-After": str(retry_after_s)}


def field_problems(errors: Sequence[Any]) -> list[FieldProblem]:
    """pydantic's errors as ours: no copy of the input, no `Value error, ` in front."""
    return [FieldProblem(tuple(e["loc"]), str(e["msg"]).removeprefix("Value error, "), str(e["type"])) for e in errors]


def problem(error: Exception, request_id: str = "") -> AppError:
    """The answer to any exception; `request_id` is logged with those that are defects."""
    match error:
        case AppError():
            return error
        case RequestValidationError() | ValidationError():
            found = field_problems(error.errors())
            if any(p.code == "json_invalid" for p in found):
                return AppError("The body is not valid JSON.", code="json_invalid", errors=found)
            return InvalidError("One or more inputs are not valid.", errors=found)
        case SparsifyError():
            return InvalidError(str(error), code=error.code)
        case _ if isinstance(error, TROUBLE):
            return _disk_full(error) if is_disk_full(error) else _unavailable(error)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return _disk_full(error)
        case HTTPException():
            return _http(error)
        case _:
            return _unexpected(error, request_id)


def render(request: Request, error: AppError) -> Response:
    """The answer as the client wants it."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
        "instance": request.url.path,
        "code": error.code,
        "errors": [p.as_dict() for p in error.errors],
        "request_id": getattr(request.state, "request_id", ""),
    }
    headers = dict(error.headers) | {"Cache-Control": "no-store"}
    if is_for_programs(request.url.path):
        return JSONResponse(body, error.status, headers, media_type="application/problem+json")
    partial = request.headers.get("HX-Request") == "true" and request.headers.get("HX-Request-Type") != "full"
    name = "errors/problem_partial.html" if partial else "errors/problem.html"
    try:
        template = request.app.state.templates.env.get_template(name)
    except TemplateNotFound:
        return PlainTextResponse(f"{error.status} {error.detail}", error.status, headers)
    context = body | {"request": request, "user": getattr(request.state, "user", None)}
    return HTMLResponse(template.render(context), error.status, headers)


def is_for_programs(path: str) -> bool:
    """Whether answers below `path` are read by programs, the event stream's client included."""
    return path.startswith(("/api/", "/events", "/healthz", "/readyz", "/metrics"))


def install(app: FastAPI) -> None:
    """Answer the expected exceptions of `app` through `problem` and `render`; the middleware does it for defects."""

    def handle(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and _is_address_of_form(request, error):
            return RedirectResponse(request.url.path.rpartition("/")[0], status_code=303)
        return render(request, problem(error))

    for kind in (AppError, RequestValidationError, ValidationError, SparsifyError, HTTPException, *TROUBLE):
        app.add_exception_handler(kind, handle)


def _is_address_of_form(request: Request, error: HTTPException) -> bool:
    """Whether somebody opens the address of a form that came back with its errors; it stands on the page above."""
    is_post_alone = error.status_code == HTTPStatus.METHOD_NOT_ALLOWED and request.method == "GET"
    if not is_post_alone or is_for_programs(request.url.path):
        return False
    above = {**request.scope, "path": request.url.path.rpartition("/")[0]}
    return any(route.matches(above)[0] == Match.FULL for route in request.app.routes)


def _http(error: HTTPException) -> AppError:
    phrase = HTTPStatus(error.status_code).phrase
    answer = AppError(f"{phrase}.", code=phrase.lower().replace(" ", "_"))
    answer.status = error.status_code
    answer.headers = dict(error.headers or {})
    return answer


def _unavailable(error: Exception) -> AppError:
    logger.error("the database did not answer: %s", error)
    answer = AppError("The database is busy or cannot be reached: try again in a moment.", code="unavailable")
    answer.status = 503
    answer.headers = {"Retry-After": "2"}
    return answer


def _disk_full(error: Exception) -> AppError:
    logger.error("the disk is full: %s", error)
    answer = AppError("The server's disk is full, so nothing can be changed: make room on it.", code="disk_full")
    answer.status = 507
    return answer


def _unexpected(error: Exception, request_id: str) -> AppError:
    logger.error("unexpected error in request %s", request_id, exc_info=error)
    answer = AppError(
        "Something went wrong on our side; the server's log has it under the request id.", code="internal"
    )
    answer.status = 500
    return answer
