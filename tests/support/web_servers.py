"""A small HTTP server that answers as a test wants: also slowly, half, or over TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Received:
    """A request that came. Header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


Answer = Callable[[Received, asyncio.StreamWriter], Awaitable[None] | None]


@dataclass
class WebServer:
    """A running server; `answer` may change at any time."""

    answer: Answer
    host: str
    port: int = 0
    scheme: str = "http"
    requests: list[Received] = field(default_factory=list)

    def url(self, path: str = "/", host: str | None = None) -> str:
        return f"{self.scheme}://{host or self.host}:{self.port}{path}"


def reply(status: int = 200, body: bytes = b"", **headers: str) -> Answer:
    """An answer that is always the same; `content_type=…` becomes `content-type: …`."""
    named = {"content-length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [f"HTTP/1.1 {status} So", *(f"{name}: {value}" for name, value in named.items()), "", ""]

    def answer(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write("\r\n".join(lines).encode() + body)

    return answer


def redirect(location: str, status: int = 302) -> Answer:
    return reply(status, b"moved", location=location)


@asynccontextmanager
async def web_server(
    answer: Answer, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[WebServer]:
    """Serve until the end of the block; connections are closed after one answer."""
    server = WebServer(answer, host, scheme="https" if tls else "http")
    handlers: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        handlers.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                request = await _read(reader)
                server.requests.append(request)
                waiting = server.answer(request, writer)
                if waiting is not None:
                    await waiting
                await writer.drain()
        finally:
            writer.close()
            handlers.discard(task)

    listening = await asyncio.start_server(handle, host, port, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        left = list(handlers)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(method, target, headers, body)


def sent_json(request: Received) -> dict[str, object]:
    return json.loads(request.body)
