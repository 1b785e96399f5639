"""Periodic work: one round after another until it is stopped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from backend.errors import AppError

logger = logging.getLogger(__name__)

ROUND_ENDS_WITHIN_S = 2.0
SHORTEST_PAUSE_S = 0.01


class Rounds:
    """Periodic work in one task. An error ends a round; the next one comes as usual.

    The log says when rounds begin to fail, when they fail in another way, and when they succeed again.

    Args:
        what: for the log; "failed:" may follow.
        work: one round.
        pause_s: returns the time until the next round; asked after each round.
    """

    def __init__(self, what: str, work: Callable[[], Awaitable[object]], pause_s: Callable[[], float]) -> None:
        self._what, self._work, self._pause_s = what, work, pause_s
        self._stopping = False
        self._alarm = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._trouble: str | None = None

    def start(self, after_s: float = 0.0) -> None:
        """Begin, with a pause before the first round or without."""
        self._task = asyncio.create_task(self._run(after_s))

    async def stop(self) -> None:
        """No round is cut short that ends soon: a query that is cancelled leaves its connection behind."""
        self._stopping = True
        self._alarm.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=ROUND_ENDS_WITHIN_S)
            self._task.cancel()
            await asyncio.wait([self._task])

    def hurry(self) -> None:
        """Begin the next round now, or as soon as this one has ended."""
        self._alarm.set()

    async def _run(self, after_s: float) -> None:
        if after_s > 0:
            await self._pause(after_s)
        while not self._stopping:
            await self._round()
            await self._pause(self._pause_s())

    async def _pause(self, pause_s: float) -> None:
        """Cheaper than `asyncio.timeout`, which counts in a process that has nothing to do but this."""
        pause = asyncio.get_running_loop().call_later(max(pause_s, SHORTEST_PAUSE_S), self._alarm.set)
        try:
            await self._alarm.wait()
        finally:
            pause.cancel()
        if not self._stopping:
            self._alarm.clear()

    async def _round(self) -> None:
        try:
            await self._work()
        except asyncio.CancelledError as error:
            # Something that the work waited for was cancelled; this task was not.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            self._note(error)
        except Exception as error:
            self._note(error)
        else:
            self._note(None)

    def _note(self, error: BaseException | None) -> None:
        trouble = None if error is None else f"{type(error).__name__}: {error}"
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if error is None:
            logger.info("%s succeeded again", self._what)
        elif isinstance(error, AppError):
            logger.warning("%s failed: %s", self._what, error)
        else:
            logger.error("%s failed", self._what, exc_info=error)
