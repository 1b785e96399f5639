"""Errors as answers: the only place where errors meet status codes.

They are problem details (RFC 9457, `application/problem+json`), unless a group of routes brings a renderer.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from backend import errors

logger = logging.getLogger(__name__)

STATUS: Mapping[type[errors.AppError], int] = {
    errors.InvalidInput: 422,
    errors.ChecksumMismatch: 460,  # tus' own; no phrase is registered for it
    errors.InvalidAudio: 422,
    errors.UnsupportedMedia: 415,
    errors.EmptyAudio: 422,
    errors.TooLarge: 413,
    errors.NotFound: 404,
    errors.UploadExpired: 410,
    errors.Conflict: 409,
    errors.UploadInUse: 423,
    errors.ObjectExists: 409,
    errors.TooManyJobs: 429,
    errors.ShareUsedUp: 429,
    errors.StorageError: 500,
    errors.ObjectMissing: 404,
    errors.ObjectCorrupt: 500,
    errors.ObjectRefused: 500,
    errors.StorageMisconfigured: 503,
    errors.StorageUnavailable: 503,
    errors.StorageFull: 507,
    errors.DatabaseUnavailable: 503,
    errors.RemoteUnavailable: 502,
    errors.ProcessingFailed: 500,
    errors.EngineUnavailable: 503,
    errors.AppError: 500,
}
RETRY_AFTER_S = {429: "30", 503: "30", 507: "60"}


class Problem(BaseModel):
    """A problem detail (RFC 9457)."""

    type: str = Field("about:blank", description="Which kind of problem; `about:blank` when the status says it all")
    title: str = Field(description="The kind of problem in a few words", examples=["Unsupported media"])
    status: int = Field(examples=[415])
    detail: str = Field(
        description="What is wrong here and what helps", examples=["The file has no audio stream. Send a recording."]
    )
    instance: str | None = Field(None, description="The path that was asked for")


def problem_responses(*statuses: int) -> dict[int | str, dict[str, object]]:
    """For a route's `responses=`: these statuses come as problem details."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """What an error's answer says, in whichever form. The attributes are named as in RFC 9457; `extra` has more."""

    status: int
    title: str
    detail: str
    instance: str
    type: str = "about:blank"
    extra: Mapping[str, object] = field(default_factory=dict)


Renderer = Callable[[ErrorAnswer], Response]
"""Makes the body of an error's answer; the headers are added to it."""


def render_problem(error: ErrorAnswer) -> Response:
    """The form of a problem detail."""
    body = {name: getattr(error, name) for name in ("type", "title", "status", "detail", "instance")}
    return JSONResponse(body | dict(error.extra), error.status, media_type="application/problem+json")


def render_errors_of(app: FastAPI, router: APIRouter, renderer: Renderer) -> None:
    """Answer errors below a router's prefix in another form, also those of middleware and of paths without a route.

    Raises:
        ValueError: the router has no prefix, so every path would be meant.
    """
    if not router.prefix:
        raise ValueError("The router needs a prefix: below it the renderer answers.")
    app.state.error_renderers = getattr(app.state, "error_renderers", {}) | {router.prefix: renderer}


def add_problem_handlers(app: FastAPI) -> None:
    """Every error leaves the app as a problem detail, or in the form of its group of routes."""
    app.add_exception_handler(errors.AppError, _app_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(Exception, _unexpected)
    described = app.openapi

    def openapi() -> dict[str, Any]:
        document = described()
        document["components"]["schemas"].setdefault("Problem", Problem.model_json_schema())
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def problem_of(error: errors.AppError) -> Problem:
    """An error as a problem detail that is part of something else."""
    kind = type(error)
    return Problem(type=_urn(kind), title=_title(kind), status=_status(kind), detail=str(error), instance=None)


def http_problem(request: Request, error: HTTPException) -> Response:
    """The answer to a request that was refused with a plain status."""
    phrase = HTTPStatus(error.status_code).phrase
    return _answer(request, error.status_code, phrase, str(error.detail or phrase), headers=error.headers)


async def _app_error(request: Request, error: Exception) -> Response:
    status = _status(type(error))
    extra = {"conversation_id": error.conversation_id} if isinstance(error, errors.ProcessingFailed) else {}
    if status >= 500:
        logger.error("%s %s: %s", request.method, request.url.path, error)
    kind = type(error)
    return _answer(request, status, _title(kind), str(error), extra, _asked_again(error), urn=_urn(kind))


def _asked_again(error: Exception) -> dict[str, str]:
    """The time at which a store is asked next, if that is known: before it, another request would fail as well."""
    in_s = error.retry_in_s if isinstance(error, errors.StorageUnavailable) else None
    return {} if in_s is None else {"Retry-After": str(max(1, math.ceil(in_s)))}


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return http_problem(request, error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [
        {
            "field": ".".join(str(part) for part in item["loc"][1:] or item["loc"]),
            "message": item["msg"].removeprefix("Value error, "),
        }
        for item in error.errors()
    ]
    detail = "; ".join(f"{item['field']}: {item['message']}" for item in found)
    return _answer(request, 422, "Invalid input", detail, {"errors": jsonable_encoder(found)})


async def _unexpected(request: Request, error: Exception) -> Response:
    logger.error("%s %s broke", request.method, request.url.path, exc_info=error)
    return _answer(request, 500, "Internal server error", "Something broke; the server's log says what.")


def _answer(
    request: Request,
    status: int,
    title: str,
    detail: str,
    extra: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    urn: str = "about:blank",
) -> Response:
    error = ErrorAnswer(status, title, detail, request.url.path, urn, extra or {})
    response = _renderer_for(request)(error)
    response.headers.update(headers or {})
    if status in RETRY_AFTER_S:
        response.headers.setdefault("Retry-After", RETRY_AFTER_S[status])
    return response


def _renderer_for(request: Request) -> Renderer:
    """By prefix and not by route: errors in middleware come before the routes, and a 404 has none."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    renderers: Mapping[str, Renderer] = getattr(request.app.state, "error_renderers", {})
    found = [prefix for prefix in renderers if path == prefix or path.startswith(f"{prefix}/")]
    return renderers[max(found, key=len)] if found else render_problem


def _status(kind: type[Exception]) -> int:
    return next(STATUS[known] for known in kind.__mro__ if known in STATUS)


def _urn(kind: type[Exception]) -> str:
    return f"urn:aperta:problem:{_slug(kind)}"


def _slug(kind: type[Exception]) -> str:
    return _title(kind).lower().replace(" ", "-")


def _title(kind: type[Exception]) -> str:
    """`UnsupportedMedia` → "Unsupported media"."""
    words = "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in kind.__name__).strip()
    return words[:1].upper() + words[1:]
