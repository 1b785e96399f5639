"""Limits of a request's body: time without bytes, bytes in a stretch of time and in all of it, size, and uploads side
by side, in all and of one API key.

One middleware for every route, because the server below it waits for a body without an end, and FastAPI keeps all of a
body in memory. A route that streams its body says so by its class, `StreamedBody`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.middleware.access import find_caller
from backend.concurrency.places import Places, Taken
from backend.config import Settings

MAX_BODY_BYTES = 1024 * 1024
"""For routes that do not stream their bodies."""
LEAST_BYTES_PER_S = 1000
"""Slower than any telephone line: a client that sends single bytes only means to occupy a place."""
GRACE_STALLS = 10
"""How many stall timeouts a body may take in all, before its average speed matters."""
BUSY_RETRY_AFTER_S = 5


def add_body_limits(app: FastAPI, settings: Settings) -> None:
    """Hold every request's body to the settings."""
    app.add_middleware(
        BodyLimits,
        stall_timeout_s=settings.upload_stall_timeout_s,
        max_uploads=settings.max_concurrent_uploads,
        max_own_uploads=settings.share_limits().own_bodies,
        least_bytes_per_s=settings.upload_least_bytes_per_s,
    )


class BodyLimits:
    """ASGI middleware.

    Args:
        stall_timeout_s: in each stretch of this much waiting, `LEAST_BYTES_PER_S` must come.
        max_uploads: recordings that are received at once; more are answered with 503.
        max_own_uploads: the same of one API key; more are answered with 429. Default: as many.
        least_bytes_per_s: for a recording longer than `GRACE_STALLS` stall timeouts, the average speed since then.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        stall_timeout_s: float,
        max_uploads: int,
        max_own_uploads: int | None = None,
        least_bytes_per_s: int = LEAST_BYTES_PER_S,
    ) -> None:
        self.app = app
        self._pace = _Pace(stall_timeout_s, GRACE_STALLS * stall_timeout_s, least_bytes_per_s)
        self._places = Places(max_uploads, max_own_uploads or max_uploads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = _Body(receive, send, self._pace, self._places, find_caller(scope).name)
        scope.setdefault("state", {})["body"] = body
        try:
            await self.app(scope, body.receive, body.send)
        finally:
            body.free_place()


@dataclass(frozen=True, slots=True)
class _Pace:
    """How long a body may be waited for: for its next bytes, and in all."""

    stall_timeout_s: float
    grace_s: float
    least_bytes_per_s: int

    def whole_s(self, received_bytes: int) -> float:
        """How long these bytes may have taken."""
        return self.grace_s + received_bytes / self.least_bytes_per_s


class _Body:
    """One request's `receive` and `send`, watched until the body is complete or the answer has begun."""

    def __init__(self, receive: Receive, send: Send, pace: _Pace, places: Places, owner: str) -> None:
        self._receive = receive
        self._send = send
        self._pace = pace
        self._places = places
        self._owner = owner
        self._is_recording = False
        self._has_place = False
        self._watched = True
        self._received_bytes = 0
        self._waited_s = 0.0
        self._new_bytes = 0
        self._waited_in_all_s = 0.0

    def admit_recording(self) -> None:
        """Let the body be as large as its route allows, in one of the places for uploads.

        Raises:
            HTTPException: 503 while all places are taken; 429 while this key has its share of them.
        """
        if (reason := self._places.find_reason(self._owner)) is not None:
            raise _busy(reason, self._places)
        self._places.take(self._owner)
        self._is_recording = self._has_place = True

    def free_place(self) -> None:
        """Give the place back: at the last byte, however long the answer takes, or when the request is over."""
        if self._has_place:
            self._has_place = False
            self._places.free(self._owner)

    async def receive(self) -> Message:
        """The next piece.

        Raises:
            HTTPException: 408 if it does not come, or too slowly; 413 if it is too much.
        """
        if not self._watched:
            return await self._receive()
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._pace.stall_timeout_s - self._waited_s):
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
        self._waited_s = min(self._waited_s + waited_s, self._pace.stall_timeout_s)
        self._waited_in_all_s += waited_s
        if not self._is_recording and self._received_bytes > MAX_BODY_BYTES:
            raise HTTPException(413, f"The body is larger than the {MAX_BODY_BYTES} bytes allowed here.")
        if self._new_bytes >= LEAST_BYTES_PER_S * self._pace.stall_timeout_s:
            self._new_bytes, self._waited_s = 0, 0.0
        if self._is_recording and self._waited_in_all_s > self._pace.whole_s(self._received_bytes):
            raise HTTPException(
                408,
                f"{self._received_bytes} bytes came in {self._waited_in_all_s:.0f} s: slower than "
                f"{self._pace.least_bytes_per_s} bytes per second (UPLOAD_LEAST_BYTES_PER_S), the upload was given up. "
                "Over a slow line, send the recording in pieces to /uploads.",
            )

    def _stalled(self) -> HTTPException:
        came = f"Only {self._new_bytes} bytes" if self._new_bytes else "No bytes"
        return HTTPException(408, f"{came} came for {self._pace.stall_timeout_s:g} s: the upload was given up.")


def _busy(reason: Taken, places: Places) -> HTTPException:
    headers = {"Retry-After": str(BUSY_RETRY_AFTER_S)}
    if reason is Taken.OWN:
        return HTTPException(
            429,
            f"{places.own} uploads of this API key are being received already, its share of MAX_CONCURRENT_UPLOADS "
            "(KEY_SHARE). Send this one when one of them is complete.",
            headers,
        )
    return HTTPException(
        503,
        f"{places.count} uploads are being received already. Try again, or raise MAX_CONCURRENT_UPLOADS.",
        headers,
    )
