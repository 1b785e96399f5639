"""Every request has an id: the caller's X-Request-ID, or a new one. The answer and the log lines carry it."""

from __future__ import annotations

import re
from uuid import uuid4

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.observability.logs import log_context

HEADER = "X-Request-ID"
_USABLE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def add_request_ids(app: FastAPI) -> None:
    """Around everything else, so that answers to unexpected errors, and the lines about them, have the id too."""
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: RequestIds(build())  # type: ignore[method-assign]


class RequestIds:
    """ASGI middleware. A caller's id that could break or forge log lines is replaced."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _USABLE.fullmatch(given) else uuid4().hex

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with log_context(request_id=request_id):
            await self.app(scope, receive, send_with_id)
