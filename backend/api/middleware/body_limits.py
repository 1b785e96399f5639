"""Limits of a request's body: time without bytes, bytes in a stretch of time, size, and uploads side by side.

One middleware for every route, because the server below it waits for a body without an end, and FastAPI keeps all of a
body in memory. A route that streams its body says so by its class, `StreamedBody`.
"""

from __future__ import annotations

import asyncio
import time

from fastapi import FastAPI
from fastapi.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.config import Settings

MAX_BODY_BYTES = 1024 * 1024
"""For routes that do not stream their bodies."""
LEAST_BYTES_PER_S = 1000
"""Slower than any telephone line: a client that sends single bytes only means to occupy a place."""
BUSY_RETRY_AFTER_S = 5


def add_body_limits(app: FastAPI, settings: Settings) -> None:
    """Hold every request's body to the settings."""
    app.add_middleware(
        BodyLimits, stall_timeout_s=settings.upload_stall_timeout_s, max_uploads=settings.max_concurrent_uploads
    )


class BodyLimits:
    """ASGI middleware.

    Args:
        stall_timeout_s: in each stretch of this much waiting, `LEAST_BYTES_PER_S` must come.
        max_uploads: recordings that are received at once; more are answered with 503.
    """

    def __init__(self, app: ASGIApp, *, stall_timeout_s: float, max_uploads: int) -> None:
        self.app = app
        self._stall_timeout_s = stall_timeout_s
        self._places = _Places(max_uploads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(receive, send, self._stall_timeout_s, self._places)
        scope.setdefault("state", {})["body"] = body
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            body.free_place()


class _Places:
    """Where uploads are received side by side."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken = 0

    def take(self) -> None:
        """Raises HTTPException: 503 while all are taken."""
        if self._taken >= self._count:
            raise HTTPException(
                503,
                f"{self._count} uploads are being received already. Try again, or raise MAX_CONCURRENT_UPLOADS.",
                headers={"Retry-After": str(BUSY_RETRY_AFTER_S)},
            )
        self._taken += 1

    def free(self) -> None:
        self._taken -= 1


class _Body:
    """One request's `receive` and `send`, watched until the body is complete or the answer has begun."""

    def __init__(self, receive: Receive, send: Send, stall_timeout_s: float, places: _Places) -> None:
        self._receive = receive
        self._send = send
        self._stall_timeout_s = stall_timeout_s
        self._places = places
        self._is_recording = False
        self._has_place = False
        self._watched = True
        self._received_bytes = 0
        self._waited_s = 0.0
        self._new_bytes = 0

    def admit_recording(self) -> None:
        """Let the body be as large as its route allows, in one of the places for uploads.

        Raises:
            HTTPException: 503 while all places are taken.
        """
        self._places.take()
        self._is_recording = self._has_place = True

    def free_place(self) -> None:
        """Give the place back: at the last byte, however long the answer takes, or when the request is over."""
        if self._has_place:
            self._has_place = False
            self._places.free()

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
            self.free_place()
        return message

    async def send(self, message: Message) -> None:
        self._watched = False  # from now on only the client's leaving is waited for
        await self._send(message)

    def _count(self, n_bytes: int, waited_s: float) -> None:
        """Count waiting only: the time to write what has come is not the client's fault."""
        self._received_bytes += n_bytes
        self._new_bytes += n_bytes
        self._waited_s = min(self._waited_s + waited_s, self._stall_timeout_s)
        if not self._is_recording and self._received_bytes > MAX_BODY_BYTES:
            raise HTTPException(413, f"The body is larger than the {MAX_BODY_BYTES} bytes allowed here.")
        if self._new_bytes >= LEAST_BYTES_PER_S * self._stall_timeout_s:
            self._new_bytes, self._waited_s = 0, 0.0

    def _stalled(self) -> HTTPException:
        came = f"Only {self._new_bytes} bytes" if self._new_bytes else "No bytes"
        return HTTPException(408, f"{came} came for {self._stall_timeout_s:g} s: the upload was given up.")
