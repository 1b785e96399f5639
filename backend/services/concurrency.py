"""Waiting for several things at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar, overload

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


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
