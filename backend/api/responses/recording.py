"""The response that serves a recording, whole, in ranges or as unchanged: from a file, a stream, or a bucket's URL."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from secrets import token_hex

import anyio
from fastapi import Response
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from backend.api.responses.policy import KEPT_PRIVATELY
from backend.api.responses.ranges import NotSatisfiable, Span, Validators, parse_ranges
from backend.domain.filenames import attachment
from backend.errors import ObjectMissing
from backend.services.storage import Access, LocalFile, PresignedUrl, Stream

_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class ServedRecording:
    """The headers that describe a recording."""

    filename: str
    content_type: str
    size_bytes: int
    sha256: str
    saved_at: datetime

    @property
    def validators(self) -> Validators:
        """The ETag is the hash, so it stays the same when the recording moves to another store."""
        return Validators(f'"{self.sha256}"', self.saved_at)

    @property
    def headers(self) -> dict[str, str]:
        """What every answer with or about the bytes carries; the digest is that of the whole, also with a range."""
        return {
            "Content-Type": self.content_type,
            "Content-Disposition": attachment(self.filename),
            "Repr-Digest": f"sha-256=:{b64encode(bytes.fromhex(self.sha256)).decode()}:",
            "Accept-Ranges": "bytes",
        }


class RecordingResponse(Response):
    """
    Args:
        recording: what it is.
        access: where the bytes are.
        find_again: gives the response anew when the bytes are gone; the recording may have moved to another store.
    """

    def __init__(
        self,
        recording: ServedRecording,
        access: Access,
        find_again: Callable[[], Awaitable[RecordingResponse]] | None = None,
    ) -> None:
        super().__init__()
        self.recording = recording
        self.access = access
        self.find_again = find_again

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked, validators = Headers(scope=scope), self.recording.validators
        state = {
            "ETag": validators.etag,
            "Last-Modified": validators.last_modified,
            "Cache-Control": KEPT_PRIVATELY,
        }
        if validators.is_known(asked):
            await Response(status_code=304, headers=state)(scope, receive, send)
        elif scope["method"] == "HEAD":
            # A URL that is signed for GET refuses HEAD, so this is answered here for every store.
            size = {"Content-Length": str(self.recording.size_bytes)}
            await Response(headers=self.recording.headers | state | size)(scope, receive, send)
        elif isinstance(self.access, PresignedUrl):
            redirect = RedirectResponse(self.access.url, 307)
            await redirect(scope, receive, send)
        else:
            spans = self._spans(asked) if validators.allow_ranges(asked) else None
            await self._send_bytes(_stream_of(self.access), spans, state, (scope, receive, send))

    def _spans(self, asked: Headers) -> Sequence[Span] | None:
        size_bytes = self.recording.size_bytes
        try:
            return parse_ranges(asked["range"], size_bytes) if "range" in asked else None
        except NotSatisfiable:
            detail = f"The recording has {size_bytes} bytes: nothing is in that range."
            raise HTTPException(416, detail, headers={"Content-Range": f"bytes */{size_bytes}"}) from None

    async def _send_bytes(
        self, stream: Stream, spans: Sequence[Span] | None, state: dict[str, str], to: tuple[Scope, Receive, Send]
    ) -> None:
        """Read a first piece before anything is sent: errors up to then still get a status."""
        status, headers, body = self._body(stream, spans)
        async with aclosing(body):
            try:
                first = await anext(body, b"")
            except ObjectMissing:
                await (await self._found_again())(*to)
                return
            whole = _with_first(first, body)
            await StreamingResponse(whole, status, self.recording.headers | state | headers)(*to)

    def _body(
        self, stream: Stream, spans: Sequence[Span] | None
    ) -> tuple[int, dict[str, str], AsyncGenerator[bytes, None]]:
        size_bytes = self.recording.size_bytes
        if spans is None:
            return 200, {"Content-Length": str(size_bytes)}, stream.open(0, None)
        if len(spans) == 1:
            [(start, end)] = spans
            part = {"Content-Range": f"bytes {start}-{end - 1}/{size_bytes}", "Content-Length": str(end - start)}
            return 206, part, stream.open(start, end)
        parts = _Parts(spans, size_bytes, self.recording.content_type)
        headers = {"Content-Type": parts.content_type, "Content-Length": str(parts.length_bytes)}
        return 206, headers, parts.body(stream)

    async def _found_again(self) -> RecordingResponse:
        found = await self.find_again() if self.find_again else None
        if found is None or found.access == self.access:
            raise ObjectMissing("The recording is gone from storage: it has just been deleted.")
        found.find_again = None
        return found


class _Parts:
    """Several ranges as one body of the type multipart/byteranges."""

    def __init__(self, spans: Sequence[Span], size_bytes: int, content_type: str) -> None:
        boundary = token_hex(13)
        self.content_type = f"multipart/byteranges; boundary={boundary}"
        self._spans = spans
        self._heads = [
            f"--{boundary}\r\nContent-Type: {content_type}\r\n"
            f"Content-Range: bytes {start}-{end - 1}/{size_bytes}\r\n\r\n"
            for start, end in spans
        ]
        self._tail = f"--{boundary}--"
        framing = sum(map(len, self._heads)) + len("\r\n") * len(spans) + len(self._tail)
        self.length_bytes = framing + sum(end - start for start, end in spans)

    async def body(self, stream: Stream) -> AsyncGenerator[bytes, None]:
        for head, (start, end) in zip(self._heads, self._spans, strict=True):
            async with aclosing(stream.open(start, end)) as chunks:
                first = await anext(chunks, b"")
                yield head.encode("latin-1") + first
                async for chunk in chunks:
                    yield chunk
            yield b"\r\n"
        yield self._tail.encode("latin-1")


def _stream_of(access: LocalFile | Stream) -> Stream:
    return access if isinstance(access, Stream) else Stream(0, partial(_read_file, access.path))


async def _read_file(path: Path, start: int, end: int | None) -> AsyncGenerator[bytes, None]:
    try:
        file = await anyio.open_file(path, "rb", buffering=0)
    except FileNotFoundError as error:
        raise ObjectMissing(f"{path} has just been deleted.") from error
    try:
        await file.seek(start)
        left = None if end is None else end - start
        while chunk := await file.read(_CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES)):
            left = None if left is None else left - len(chunk)
            yield chunk
    finally:
        with anyio.CancelScope(shield=True):
            await file.aclose()


async def _with_first(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for chunk in rest:
        yield chunk
