"""The response that serves a recording: whole, ranges, digest."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable

import anyio
from fastapi import Response
from fastapi.responses import FileResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from backend.errors import ObjectMissing

_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{0,18})|-[0-9]{1,18}")


class _Recording(FileResponse):
    """A file whose errors are problem details, and whose malformed ranges are ignored (RFC 9110, section 14.2).

    Attributes:
        find_again: gives the response anew when the file is gone; it may have moved to another store.
    """

    find_again: Callable[[], Awaitable[Response]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Headers(scope=scope).get("range")
        if asked is not None and not _is_range(asked):
            scope = {**scope, "headers": [header for header in scope["headers"] if header[0] != b"range"]}
        start: Message | None = None

        async def send_late(message: Message) -> None:
            """Hold the start back until the file is open: what went wrong by then can still be said."""
            nonlocal start
            if message["type"] == "http.response.start":
                _refuse_unsatisfiable(message)
                start = message
                return
            if start is not None:
                await send(start)
                start = None
            await send(message)

        try:
            self.stat_result = await anyio.to_thread.run_sync(os.stat, self.path)
            self.set_stat_headers(self.stat_result)
            await super().__call__(scope, receive, send_late)
        except FileNotFoundError as error:
            found = await self.find_again() if self.find_again else None
            if found is None or (isinstance(found, _Recording) and found.path == self.path):
                raise ObjectMissing("The recording is gone from storage: it was deleted at this moment.") from error
            await found(scope, receive, send)


def _repr_digest(sha256: str) -> str:
    """The hash of the whole recording as RFC 9530 writes it, also when only a range of it is sent."""
    return f"sha-256=:{b64encode(bytes.fromhex(sha256)).decode()}:"


def _is_range(asked: str) -> bool:
    unit, _, listed = asked.partition("=")
    parts = [part.strip() for part in listed.split(",") if part.strip()]
    found = [_RANGE.fullmatch(part) for part in parts]
    return bool(parts) and unit.strip().lower() == "bytes" and all(match and _is_forward(match) for match in found)


def _is_forward(match: re.Match[str]) -> bool:
    return not match[2] or int(match[1]) <= int(match[2])


def _refuse_unsatisfiable(start: Message) -> None:
    if start["status"] == 416:
        content_range = Headers(raw=start["headers"])["content-range"]
        detail = f"The recording has {content_range.removeprefix('bytes */')} bytes: nothing is in that range."
        raise HTTPException(416, detail, headers={"Content-Range": content_range})
