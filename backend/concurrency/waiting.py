"""Waiting: join several tasks, and retry until the database answers again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

from backend.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)


A = TypeVar("A")


B = TypeVar("B")


C = TypeVar("C")


T = TypeVar("T")


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
