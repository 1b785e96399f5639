"""Who appends to which upload in this process, so that a request on a dead connection can be made to give way."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import anyio

MAKE_WAY_S = 10.0


@dataclass(slots=True)
class Appending:
    """One request. `scope` ends it; once it is over, nothing more comes, and what came is being made safe."""

    scope: anyio.CancelScope
    ended: anyio.Event
    heard_at: float
    over: bool = False

    async def heard(self, stream: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """The stream as it is; when something last came is remembered."""
        try:
            async for chunk in stream:
                self.heard_at = time.monotonic()
                yield chunk
        finally:
            self.over = True


class Appenders:
    def __init__(self) -> None:
        self._running: dict[str, Appending] = {}

    @contextmanager
    def begin(self, upload_id: str) -> Iterator[Appending]:
        """Be known as the one who appends, until the end of the context. The caller sees to it that there is one."""
        appending = Appending(anyio.CancelScope(), anyio.Event(), time.monotonic())
        self._running[upload_id] = appending
        try:
            yield appending
        finally:
            del self._running[upload_id]
            appending.ended.set()

    async def stop(self, upload_id: str, *, silent_s: float = 0.0) -> None:
        """End the current writer if its connection is silent or dead; return when its bytes are durable."""
        appending = self._running.get(upload_id)
        if appending is None:
            return
        if not appending.over:
            if time.monotonic() - appending.heard_at < silent_s:
                return
            appending.scope.cancel()
        with anyio.move_on_after(MAKE_WAY_S):
            await appending.ended.wait()
