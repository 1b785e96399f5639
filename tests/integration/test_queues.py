"""The queues of a fleet, as the durable engine keeps them."""

from __future__ import annotations

import asyncio

import pytest
from dbos import DBOS

from backend.services.jobs.queue import LONG, SHORT
from backend.services.jobs.schedule.table import Kind
from backend.wiring.services import Services

pytestmark = pytest.mark.anyio


async def polls_s() -> dict[str, float]:
    return {queue.name: await queue.get_polling_interval_sec_async() for queue in await DBOS.list_queues_async()}


async def test_the_more_processes_there_are_the_less_often_each_looks(services: Services) -> None:
    await services.runner.start()
    async with asyncio.timeout(10):
        while not getattr(services.schedule.last().get(Kind.FLEET), "ok", None):  # it sets the pace, too
            await asyncio.sleep(0.01)
    alone = await polls_s()
    await services.durable.pace(1000)
    many = await polls_s()
    assert (alone[SHORT], alone[LONG]) == (0.1, 1.0) and (many[SHORT], many[LONG]) == (10.0, 10.0)
    await services.durable.pace(1001)
    assert await polls_s() == many, "a process more or less is not worth a write"
    await services.durable.pace(1)
    assert await polls_s() == alone


async def test_queues_of_machines_that_are_gone_are_deleted(services: Services) -> None:
    await services.runner.start()
    before = set(await polls_s())
    await DBOS.register_queue_async("storage-gone")
    await services.scheduler.run(Kind.QUEUES)
    assert set(await polls_s()) == before
