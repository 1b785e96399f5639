"""A request's body as it arrives, and the routes that read theirs so; `middleware/body_limits.py` watches both."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol, cast

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

BODY_METHODS = ("POST", "PUT", "PATCH")


class LimitedBody(Protocol):
    """A request's body under the limits for small ones; the middleware leaves it in the request's state as `body`."""

    def admit_recording(self) -> None:
        """Let the body be as large as a recording. Raises HTTPException: 503 or 429 while too many are received."""


class StreamedBody(APIRoute):
    """For a router's `route_class`: its routes stream their bodies and check the size themselves.

    Other routes get a small body only, because FastAPI keeps all of it in memory.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in BODY_METHODS and scope["method"] in (self.methods or ()):
            cast("LimitedBody", scope["state"]["body"]).admit_recording()
        await super().handle(scope, receive, send)


async def body_of(request: Request) -> AsyncGenerator[bytes, None]:
    """The body's bytes in the pieces they come in.

    Raises:
        HTTPException: 400 if the client goes away.
    """
    try:
        async for data in request.stream():
            if data:
                yield data
    except ClientDisconnect as error:
        raise HTTPException(400, "The client closed the connection before the upload was complete.") from error
