"""Every answer says what browsers and caches may do with it: pages, data, files, errors, redirects, 304."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.responses.policy import COMMON, DATA_POLICY, MAY_BE_KEPT, NOT_KEPT


def add_response_headers(app: FastAPI) -> None:
    """Around everything else, so that answers to unexpected errors have them too."""
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: ResponseHeaders(build())  # type: ignore[method-assign]


class ResponseHeaders:
    """ASGI middleware. A route may set another Content-Security-Policy, and a Cache-Control of `MAY_BE_KEPT`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(COMMON)
                headers.setdefault("Content-Security-Policy", DATA_POLICY)
                if headers.get("Cache-Control") not in MAY_BE_KEPT:
                    headers["Cache-Control"] = NOT_KEPT
            await send(message)

        await self.app(scope, receive, send_with_headers)
