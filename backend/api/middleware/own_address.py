"""Only requests that are meant for this server: its names, its proxies, its path prefix.

Without keys, `Host` alone tells our page from a page whose own name was turned to this machine's address (DNS
rebinding): to the browser both are same-origin. With keys every name is served unless ALLOWED_HOSTS narrows them. The
rebound page has no key: browsers keep the name and secret that a user typed for one origin, and ask again for another.
"""

from __future__ import annotations

from typing import Any, cast

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from backend.api.problems import http_problem
from backend.api.requests.address import settle_address
from backend.config import Settings
from backend.domain.access.hosts import OwnNames


def add_own_address(app: FastAPI, settings: Settings) -> None:
    """Hold every request to the server's own names. To be added last, so that nothing runs before it."""
    app.add_middleware(
        OwnAddress,
        names=settings.own_names(),
        proxies=settings.forwarded_allow_ips,
        prefix=settings.root_path or "",
    )


class OwnAddress:
    """ASGI middleware; what is behind it finds the client, the scheme, `Host` and `root_path` as the client sees them.

    Args:
        names: what this server may be called.
        proxies: addresses and networks, separated by commas, whose X-Forwarded headers count.
        prefix: of the paths under which clients reach this server.
    """

    def __init__(self, app: ASGIApp, *, names: OwnNames, proxies: str, prefix: str) -> None:
        self._names = names
        self._prefix = prefix
        self._forwarded = ProxyHeadersMiddleware(cast(Any, app), proxies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            peer = (scope.get("client") or (None,))[0]
            is_forwarded = peer in self._forwarded.trusted_hosts
            try:
                settle_address(scope, self._names, self._prefix, is_forwarded=is_forwarded)
            except HTTPException as error:
                await http_problem(Request(scope), error)(scope, receive, send)
                return
        await self._forwarded(cast(Any, scope), cast(Any, receive), cast(Any, send))
