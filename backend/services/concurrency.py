"""Waiting: for several things at once, for a database to come back, and for the next round of what never ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar, overload

from backend.errors import AppError, DatabaseUnavailable

logger = logging.getLogger(__name__)

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
T = TypeVar("T")

ROUND_ENDS_WITHIN_S = 2.0


@overload
async def all_of(a: Awaitable[A], b: Awaitable[B], /) -> tuple[A, B]: ...
@overload
async def all_of(a: Awaitable[A], b: Awaitable[B], c: Awaitable[C], /) -> tuple[A, B, C]: ...
async def all_of(*awaitables: Awaitable[object]) -> tuple[object, ...]:
    """Run side by side and wait for every one of them, also when one fails; then raise the first error.

    Unlike a task group, the error arrives as itself and not inside an ExceptionGroup; unlike a bare gather, nothing
    is still running behind the caller's back (threads cannot be cancelled and use what the caller will close).
    """
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return tuple(results)


async def until_available(work: Callable[[], Awaitable[T]], check: Callable[[], None]) -> T:
    """Do what must be written, however long the database is away.

    Args:
        check: called before each try; may raise, to give up.
    """
    wait_s = 0.5
    while True:
        check()
        try:
            return await work()
        except DatabaseUnavailable as error:
            logger.error("waiting for the database: %s", error)
            await asyncio.sleep(wait_s)
            wait_s = min(2.0, wait_s * 2)


class Rounds:
    """Work that is done again and again, in a task of its own, whatever errors it meets.

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
