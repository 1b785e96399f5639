"""What clients do in a round."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.torture.ledger import Sent
from benchmarks.torture.world import World

SMALL_BYTES, LARGE_BYTES = (2_000, 300_000), (17_000_000, 20_000_000)


async def upload(
    world: World, *, large: bool = False, top_bytes: int = SMALL_BYTES[1], pause_s: float | None = None
) -> Sent:
    """One upload of a random size."""
    low, high = LARGE_BYTES if large else (SMALL_BYTES[0], top_bytes)
    # Sizes over orders of magnitude: most are small.
    size = int(low * (high / low) ** world.random.random())
    pause_s = world.random.choice((0.0, 0.0, 0.01, 0.03)) if pause_s is None else pause_s
    return await world.upload(world.recording(size), pause_s=0.0 if large else pause_s)


@asynccontextmanager
async def traffic(
    world: World,
    *,
    count: int | None = None,
    large: int = 0,
    pause_s: float | None = None,
    reads: bool = True,
) -> AsyncIterator[None]:
    """Clients that upload, read and now and then delete; at the end they all have their answers."""
    count = world.random.randint(3, 6) if count is None else count
    tasks = [asyncio.create_task(upload(world, pause_s=pause_s)) for _ in range(count)]
    tasks += [asyncio.create_task(upload(world, large=True)) for _ in range(large)]
    others: list[asyncio.Task[object]] = []
    if reads:
        others += [asyncio.create_task(world.read(sent)) for sent in world.some(2)]
    if world.random.random() < 0.2:
        others += [asyncio.create_task(world.delete(sent)) for sent in world.some(1)]
    try:
        yield
    finally:
        await asyncio.gather(*tasks, *others)
