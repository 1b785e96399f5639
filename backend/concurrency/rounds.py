"""Periodic work: one round after another until it is stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from backend.errors import AppError

logger = logging.getLogger(__name__)


ROUND_ENDS_WITHIN_S = 2.0


class Rounds:
    """Periodic work in a separate task; an error in one round does not stop the next.

    Args:
        what: for the log.
        work: one round.
        pause_s: how long to wait for the next one.
    """

    def __init__(self, what: str, work: Callable[[], Awaitable[object]], pause_s: Callable[[], float]) -> None:
        self._what, self._work, self._pause_s = what, work, pause_s
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """No round is cut short that ends soon: a query that is cancelled leaves its connection behind."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=ROUND_ENDS_WITHIN_S)
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._work()
            except AppError as error:
                logger.warning("%s is tried again: %s", self._what, error)
            except Exception:
                logger.exception("%s failed and is tried again", self._what)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._pause_s())
