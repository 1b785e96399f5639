"""The rounds: one fault each, clients at work meanwhile, and the way back. The world's seed decides what and when."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from benchmarks.torture.disk import Disk
from benchmarks.torture.killing import DELETE, DRAIN, LOCAL, POINTS, S3, UPLOAD
from benchmarks.torture.rows import ObjectRow
from benchmarks.torture.traffic import traffic, upload
from benchmarks.torture.world import World
from tests.support.servers import Mode

CROWD = 50
SETTLED_OFTEN = 0.3
"""So often a round ends only when all that it began is done; the others leave it to the next."""


@dataclass(frozen=True, slots=True)
class Fault:
    """
    Attributes:
        weight: how often, compared with others.
        needs: "disk" that can be mounted, "bucket", "local" for worlds without one.
    """

    name: str
    run: Callable[[World], Awaitable[None]]
    weight: int
    needs: frozenset[str]


FAULTS: list[Fault] = []


def fault(
    name: str, weight: int, *needs: str
) -> Callable[[Callable[[World], Awaitable[None]]], Callable[[World], Awaitable[None]]]:
    def add(run: Callable[[World], Awaitable[None]]) -> Callable[[World], Awaitable[None]]:
        FAULTS.append(Fault(name, run, weight, frozenset(needs)))
        return run

    return add


def possible(world: World) -> list[Fault]:
    """The faults that this world can have."""
    has = {"bucket"} if world.bucket else {"local"}
    if isinstance(world.disk, Disk):
        has.add("disk")
    return [item for item in FAULTS if item.needs <= has]


async def run_round(world: World, item: Fault) -> None:
    """One fault, with a server before and after it."""
    if not world.alive:
        await world.start()
    begun, world.fault = time.monotonic(), item.name
    await item.run(world)
    if not world.alive:
        begun = time.monotonic()
        await world.start()
    world.tally.rounds += 1
    world.tally.by_fault[item.name] += 1
    if world.random.random() < SETTLED_OFTEN:
        await world.settle(begun if world.alive else None)


@fault("kill -9 at a random moment", 8)
async def kill_at_random(world: World) -> None:
    async with traffic(world):
        await asyncio.sleep(world.random.uniform(0, 0.8))
        await world.kill()


@fault("kill -9 at a point of an upload", 12)
async def kill_at_a_point(world: World) -> None:
    points = UPLOAD if world.bucket else UPLOAD | LOCAL
    await _killed_at(world, world.random.choice([*points]), large=0)


@fault("kill -9 while S3 is written", 8, "bucket")
async def kill_while_s3_is_written(world: World) -> None:
    await _killed_at(world, world.random.choice([*S3]), large=2)


@fault("kill -9 during the drain", 10, "bucket")
async def kill_during_the_drain(world: World) -> None:
    await _save_locally(world)
    point = world.random.choice([None, *DRAIN])
    if point:
        world.doom(point, world.random.randint(1, DRAIN[point].often))
    _proxy(world, "pass")
    if not await world.died(point, 4.0 if point else world.random.uniform(0.3, 2.5)):
        await world.kill()


@fault("kill -9 during a delete", 6)
async def kill_during_a_delete(world: World) -> None:
    victims = world.some(3)
    point = world.random.choice([*DELETE])
    async with traffic(world, count=2):
        world.doom(point, world.random.randint(1, DELETE[point].often))
        await asyncio.gather(*(world.delete(sent) for sent in victims))
        if not await world.died(point, 0.3):
            await world.kill()


@fault("stop and start", 2)
async def stop_and_start(world: World) -> None:
    async with traffic(world):
        await asyncio.sleep(world.random.uniform(0, 0.5))
        await world.stop()


@fault("power loss", 10, "disk")
async def power_loss(world: World) -> None:
    async with traffic(world):
        if world.random.random() < 0.7:
            await world.until_accepted(5.0)
        await asyncio.sleep(world.random.uniform(0, 0.6))
        await world.lose_power()


@fault("disk full", 5, "disk")
async def disk_full(world: World) -> None:
    assert isinstance(world.disk, Disk)
    leave_bytes = world.random.choice((0, 20_000, 200_000, 600_000))
    async with traffic(world, pause_s=0.0):
        await asyncio.sleep(world.random.uniform(0, 0.1))
        await asyncio.to_thread(world.disk.fill, leave_bytes)
        try:
            await asyncio.sleep(world.random.uniform(0.3, 1.0))
            if world.random.random() < 0.3:
                await world.kill()
        finally:
            await asyncio.to_thread(world.disk.empty)


@fault("disk read-only", 4, "disk")
async def disk_read_only(world: World) -> None:
    assert isinstance(world.disk, Disk)
    async with traffic(world, pause_s=0.0):
        if await asyncio.to_thread(world.disk.make_read_only):
            try:
                late = [upload(world) for _ in range(2)]
                await asyncio.gather(asyncio.sleep(world.random.uniform(0.3, 0.8)), *late)
            finally:
                await asyncio.to_thread(world.disk.make_writable)


@fault("database away", 6)
async def database_away(world: World) -> None:
    """For longer than a server waits for it."""
    async with traffic(world):
        await asyncio.sleep(world.random.uniform(0, 0.5))
        async with world.database.away(world.random):
            await asyncio.sleep(world.random.uniform(0.5, 1.5))


@fault("50 uploads of one name at once", 2)
async def crowd(world: World) -> None:
    sent = [upload(world, top_bytes=8_000) for _ in range(CROWD)]
    accepted = [item for item in await asyncio.gather(*sent) if item.conversation_id]
    if len({item.conversation_id for item in accepted}) != len(accepted):
        world.tally.complain("lost", "two uploads of one name became one conversation")


@fault("a bit flipped in a local file", 4)
async def flip_local(world: World) -> None:
    if world.bucket:
        await _save_locally(world)
        await asyncio.sleep(0.5)
    if (item := await _some_object(world, "local")) is not None:
        place = world.random.randrange(item.size_bytes)
        with contextlib.suppress(FileNotFoundError), flipped_bit(Path(item.locator), place):  # it may move to S3
            await _expect_refusal(world, item)
    if world.bucket:
        _proxy(world, "pass")


@fault("a bit flipped in S3", 4, "bucket")
async def flip_s3(world: World) -> None:
    assert world.bucket
    if (item := await _some_object(world, "s3")) is None:
        return
    where = {"Bucket": world.bucket.name, "Key": item.locator.removeprefix(f"s3://{world.bucket.name}/")}
    there = await asyncio.to_thread(world.bucket.client.get_object, **where)
    data, kept = there["Body"].read(), {"Metadata": there["Metadata"], "ContentType": there["ContentType"]}
    place = world.random.randrange(len(data))
    flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    try:
        await asyncio.to_thread(world.bucket.client.put_object, **where, **kept, Body=flipped)
        await _expect_refusal(world, item)
    finally:
        await asyncio.to_thread(world.bucket.client.put_object, **where, **kept, Body=data)


@fault("a delete during the drain", 4, "bucket")
async def delete_during_the_drain(world: World) -> None:
    sent = await _save_locally(world)
    await asyncio.sleep(world.random.uniform(0, 0.5))
    rows = await world.rows()
    done = [item for item in sent if (job := rows.jobs.get(item)) and job.status == "completed"]
    _proxy(world, "pass")
    await asyncio.sleep(world.random.uniform(0, 1.5))
    wanted = [item for item in world.sent if item.conversation_id in done and not item.deleting]
    await asyncio.gather(*(world.delete(item) for item in wanted[:3]))


def _add_s3_faults() -> None:
    for mode in get_args(Mode):
        if mode != "pass":
            _add_s3_fault(mode)


def _add_s3_fault(mode: Mode) -> None:
    name = {"flip": "a bit flipped on the way to S3", "slow": "S3 at 256 KB/s"}.get(mode, f"S3: {mode}")

    @fault(name, 4, "bucket")
    async def run(world: World) -> None:
        large = int(mode in ("reset", "flip", "slow") and world.random.random() < 0.3)
        async with traffic(world, large=large, reads=mode != "flip"):
            await asyncio.sleep(world.random.uniform(0, 0.3))
            _proxy(world, mode)
            try:
                await asyncio.sleep(world.random.uniform(0.3, 1.5))
                if world.random.random() < 0.3:
                    await world.kill()
            finally:
                _proxy(world, "pass")


_add_s3_faults()


async def _killed_at(world: World, point: str, *, large: int) -> None:
    world.doom(point, world.random.randint(1, POINTS[point].often))
    async with traffic(world, large=large):
        if not await world.died(point, 2.0 + 2.0 * large):
            await world.kill()


async def _save_locally(world: World) -> list[str]:
    """Let uploads go to the local folder, since S3 is off, and leave it off."""
    _proxy(world, "refuse")
    sent = [upload(world, top_bytes=60_000, pause_s=0.0) for _ in range(world.random.randint(3, 6))]
    done = await asyncio.gather(*sent)
    return [item.conversation_id for item in done if item.conversation_id]


def _proxy(world: World, mode: Mode) -> None:
    assert world.bucket
    world.bucket.proxy.mode = mode


async def _some_object(world: World, store: str) -> ObjectRow | None:
    """A recording of a conversation that is at rest, in one store."""
    rows = await world.rows()
    for sent in world.some(50, lambda sent: bool(sent.conversation_id) and not sent.deleting):
        for item in rows.objects.get(sent.conversation_id or "", ()):
            if item.kind == "audio" and item.store == store and item.size_bytes < 1_000_000:
                return item
    return None


@contextmanager
def flipped_bit(path: Path, place: int) -> Iterator[None]:
    """One bit of a file is wrong in the meantime."""
    with path.open("r+b", buffering=0) as file:

        def flip() -> None:
            byte = os.pread(file.fileno(), 1, place)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 1]), place)

        flip()
        try:
            yield
        finally:
            flip()


async def _expect_refusal(world: World, item: ObjectRow) -> None:
    """A recording that is not what was saved is refused, or not available; never served."""
    sent = next(sent for sent in world.sent if sent.conversation_id == item.conversation_id)
    status = await world.read(sent)
    world.tally.flips += 1
    if status == 200:
        world.tally.complain("flips_missed", f"{item.locator} was served with a wrong bit")
