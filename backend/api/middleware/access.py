"""Who may ask what: keys, routes for administrators, and no orders from pages other than our own.

All of it is decided from the head of a request, before any of its body is read.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.api.middleware.wrong_keys import WrongKeys
from backend.api.problems import http_problem, problem_responses
from backend.api.requests.address import is_own_origin, route_path
from backend.config import Settings
from backend.domain.access.keys import AccessKeys, Caller

OPEN_PATHS = ("/health/live", "/health/ready")
"""Asked by probes, which have no key."""
ASSETS = "/assets/"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
OWN_SITES = ("same-origin", "none")
"""What `Sec-Fetch-Site` says of our own page, and of an address that the user typed in."""
CHALLENGE = {"WWW-Authenticate": 'Basic realm="Aperta", charset="UTF-8"'}
SCHEMES = {
    "basic": {"type": "http", "scheme": "basic", "description": "A key's name and secret, as browsers ask for them"},
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key's secret"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "A key's secret"},
}


def add_access(app: FastAPI, settings: Settings) -> None:
    """Ask for keys if there are any. To be added after what reads bodies, so that it stands before that."""
    keys = settings.access_keys()
    app.add_middleware(Access, keys=keys)
    if keys is not None:
        _describe(app)


class Access:
    """ASGI middleware; what is behind it finds the caller by `caller_of`.

    Args:
        keys: without them everybody may ask.
    """

    def __init__(self, app: ASGIApp, *, keys: AccessKeys | None) -> None:
        self.app = app
        self._keys = keys
        self._wrong_keys = WrongKeys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        await self._wrong_keys.wait(scope)
        try:
            caller = self._admit(scope)
        except HTTPException as error:
            await http_problem(Request(scope), self._wrong_keys.refusal(scope, error))(scope, receive, send)
            return
        if caller.name:
            self._wrong_keys.note_right(scope)
        scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, send)

    def _admit(self, scope: Scope) -> Caller:
        headers = Headers(scope=scope)
        if scope["method"] not in SAFE_METHODS and not _is_own(scope, headers):
            raise HTTPException(
                403,
                "A page of another site or port may not change anything here. If this page is Aperta's own, let the "
                "proxy in front of it pass the Host header on.",
            )
        if self._keys is None or _is_open(scope):
            return Caller()
        credentials = _credentials(headers)
        if credentials is None:
            raise HTTPException(
                401,
                "A key is needed. Send its name and secret by HTTP Basic (curl -u name:secret), or its secret as "
                "Authorization: Bearer or X-API-Key.",
                CHALLENGE,
            )
        if (caller := self._keys.find(*credentials)) is None:
            raise HTTPException(401, "There is no such key. Check its name and secret.", CHALLENGE)
        return caller


class AdminRoute(APIRoute):
    """For a router's `route_class`: its routes answer administrators only."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not caller_of(scope).is_admin:
            raise HTTPException(403, "This needs the key of an administrator (API_ADMINS).")
        await super().handle(scope, receive, send)


def find_caller(scope: Scope) -> Caller:
    """Who asks; the nameless caller in an application without this middleware."""
    return cast(Caller, scope.get("state", {}).get("caller", Caller()))


def caller_of(scope: Scope) -> Caller:
    """Who asks, in a request that was let in."""
    return cast(Caller, scope["state"]["caller"])


def _is_open(scope: Scope) -> bool:
    path = route_path(scope)
    return path in OPEN_PATHS or path.startswith(ASSETS)


def _is_own(scope: Scope, headers: Headers) -> bool:
    """Whether our page or a program asks. Browsers say it in Sec-Fetch-Site over HTTPS and to localhost; elsewhere the
    page's origin shows it. Programs send neither."""
    if sites := headers.getlist("sec-fetch-site"):
        return all(site in OWN_SITES for site in sites)
    return all(is_own_origin(scope, origin) for origin in headers.getlist("origin"))


def _credentials(headers: Headers) -> tuple[bytes, str | None] | None:
    """A secret, and the name that came with it. X-API-Key goes first: Authorization may be meant for a proxy."""
    if secret := headers.get("x-api-key"):
        return secret.encode("latin-1"), None
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip().encode("latin-1"), None
    if scheme.lower() == "basic":
        with suppress(ValueError):
            name, _, password = base64.b64decode(given.strip(), validate=True).partition(b":")
            return password, name.decode("utf-8", "replace")
    return None


def _describe(app: FastAPI) -> None:
    """Tell OpenAPI, so that Swagger UI's Authorize works. Only tell: FastAPI's own checks come after the body."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        document = described()
        document["components"]["securitySchemes"] = SCHEMES
        document["security"] = [{name: []} for name in SCHEMES]
        for path, operations in document["paths"].items():
            for operation in operations.values():
                if path in OPEN_PATHS:
                    operation["security"] = []
                else:
                    operation["responses"]["401"] = problem_responses(401)[401]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
