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
    """One request. `scope` ends it."""

    scope: anyio.CancelScope
    ended: anyio.Event
    heard_at: float

    async def heard(self, stream: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        """The stream as it is; when something last came is remembered."""
        async for chunk in stream:
            self.heard_at = time.monotonic()
            yield chunk


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
        """End whoever appends, if nothing has come for so long; return when what came is safe."""
        appending = self._running.get(upload_id)
        if appending and time.monotonic() - appending.heard_at >= silent_s:
            appending.scope.cancel()
            with anyio.move_on_after(MAKE_WAY_S):
                await appending.ended.wait()
