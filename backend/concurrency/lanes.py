"""Threads for blocking work, a bounded number per kind of work. What runs in them lives elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import ParamSpec, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

P = ParamSpec("P")
T = TypeVar("T")


class ThreadLane:
    """At most `width` threads per event loop for one kind of work, so that a stuck store does not block other work.

    The limiter lives per event loop because a durable-workflow engine may call from another loop.
    """

    def __init__(self, name: str, width: int) -> None:
        self._width = width
        self._limiter: RunVar[CapacityLimiter] = RunVar(name)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the work in a thread and wait for its end, even if the caller is cancelled."""
        # anyio shields the thread from its own cancel scopes only. After a plain Task.cancel() the caller would close
        # or unlink a file that the thread still uses, so that kind is waited out here.
        hop = asyncio.ensure_future(to_thread.run_sync(partial(work, *args, **kwargs), limiter=self._current()))
        try:
            return await asyncio.shield(hop)
        except asyncio.CancelledError:
            with CancelScope(shield=True), suppress(Exception):
                await asyncio.shield(hop)
            raise

    async def run_or_leave(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the work in a thread that is left to itself when the caller is cancelled. Only for harmless work."""
        return await to_thread.run_sync(partial(work, *args, **kwargs), limiter=self._current(), abandon_on_cancel=True)

    def _current(self) -> CapacityLimiter:
        try:
            return self._limiter.get()
        except LookupError:
            limiter = CapacityLimiter(self._width)
            self._limiter.set(limiter)
            return limiter
