"""What a request's body may cost: time without bytes, bytes where few are due, and uploads side by side.

One middleware for every route, because the server below it waits for a body without an end, and reading one in the
usual way keeps all of it in memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.problems import http_problem
from backend.api.requests.address import route_path
from backend.config import Settings

UPLOAD_PATHS = ("/audio/process", "/uploads")
"""Where bodies are recordings: the routes stream them and know their own limit of size."""
OTHERS_BELOW = ("/uploads/presign",)
MAX_BODY_BYTES = 1024 * 1024
"""Everywhere else."""
LEAST_BYTES_PER_S = 1000
"""Slower than any telephone line; a client that sends a byte now and then only occupies a place."""
BUSY_RETRY_AFTER_S = 5


def add_body_limits(app: FastAPI, settings: Settings) -> None:
    """Hold every request's body to the settings."""
    app.add_middleware(
        BodyLimits, stall_timeout_s=settings.upload_stall_timeout_s, max_uploads=settings.max_concurrent_uploads
    )


class BodyLimits:
    """ASGI middleware.

    Args:
        stall_timeout_s: for each such stretch of waiting, `LEAST_BYTES_PER_S` must come.
        max_uploads: recordings that are received at once; more are answered with 503.
    """

    def __init__(self, app: ASGIApp, *, stall_timeout_s: float, max_uploads: int) -> None:
        self.app = app
        self._stall_timeout_s = stall_timeout_s
        self._max_uploads = max_uploads
        self._uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif not _is_upload(scope):
            body = _Body(receive, send, self._stall_timeout_s, MAX_BODY_BYTES)
            await self.app(scope, body.receive, body.send)
        elif self._uploads >= self._max_uploads:
            await self._refuse(scope, receive, send)
        else:
            await self._upload(scope, receive, send)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The place is free again once the last byte is here, however long the answer takes."""
        freed = False

        def free() -> None:
            nonlocal freed
            self._uploads -= not freed
            freed = True

        self._uploads += 1
        body = _Body(receive, send, self._stall_timeout_s, None, free)
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            free()

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = HTTPException(
            503,
            f"{self._max_uploads} uploads are being received already. Try again, or raise MAX_CONCURRENT_UPLOADS.",
            headers={"Retry-After": str(BUSY_RETRY_AFTER_S)},
        )
        await http_problem(Request(scope), error)(scope, receive, send)


class _Body:
    """One request's `receive` and `send`, watched until the body is complete or the answer has begun."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        stall_timeout_s: float,
        max_bytes: int | None,
        completed: Callable[[], None] = lambda: None,
    ) -> None:
        self._receive = receive
        self._send = send
        self._stall_timeout_s = stall_timeout_s
        self._max_bytes = max_bytes
        self._completed = completed
        self._watched = True
        self._received_bytes = 0
        self._waited_s = 0.0
        self._new_bytes = 0

    async def receive(self) -> Message:
        """The next piece.

        Raises:
            HTTPException: 408 if it does not come, or too slowly; 413 if it is too much.
        """
        if not self._watched:
            return await self._receive()
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._stall_timeout_s - self._waited_s):
                message = await self._receive()
        except TimeoutError as error:
            raise self._stalled() from error
        self._count(len(message.get("body", b"")), time.monotonic() - began)
        if not message.get("more_body", False):
            self._watched = False
            self._completed()
        return message

    async def send(self, message: Message) -> None:
        self._watched = False  # the body does not matter any more; waiting now is for the client to go
        await self._send(message)

    def _count(self, n_bytes: int, waited_s: float) -> None:
        """Only waiting counts: how long we take to write what has come is not the client's fault."""
        self._received_bytes += n_bytes
        self._new_bytes += n_bytes
        self._waited_s = min(self._waited_s + waited_s, self._stall_timeout_s)
        if self._max_bytes is not None and self._received_bytes > self._max_bytes:
            raise HTTPException(413, f"The body is larger than the {self._max_bytes} bytes allowed here.")
        if self._new_bytes >= LEAST_BYTES_PER_S * self._stall_timeout_s:
            self._new_bytes, self._waited_s = 0, 0.0

    def _stalled(self) -> HTTPException:
        came = f"Only {self._new_bytes} bytes" if self._new_bytes else "No bytes"
        return HTTPException(408, f"{came} came for {self._stall_timeout_s:g} s: the upload was given up.")


def _is_upload(scope: Scope) -> bool:
    path = route_path(scope)
    sends = scope["method"] in ("POST", "PUT", "PATCH") and path not in OTHERS_BELOW
    return sends and any(path == upload or path.startswith(f"{upload}/") for upload in UPLOAD_PATHS)
