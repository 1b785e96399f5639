"""The queues of a fleet, as the durable engine keeps them."""

from __future__ import annotations

import asyncio
import time

import pytest
from dbos import DBOS, DBOSClient, EnqueueOptions

from backend.config import Settings
from backend.database.session import durable_url
from backend.services.jobs.durable.checkpoints import JsonCheckpoints
from backend.services.jobs.durable.polling import AWAKE_S
from backend.services.jobs.queue import LONG, SHORT, WORKFLOW
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


async def test_an_idle_process_begins_a_job_at_once(services: Services) -> None:
    """The threads of the queues sleep for half a minute."""
    await services.runner.start()
    await asyncio.sleep(AWAKE_S + 0.5)
    began = time.monotonic()
    await services.durable.enqueue(WORKFLOW, "job_unknown", SHORT)
    while not (await services.durable.states(["job_unknown"]))["job_unknown"].ended:
        await asyncio.sleep(0.01)
    assert time.monotonic() - began < 5


async def test_work_that_another_process_queued_is_found(services: Services, settings: Settings) -> None:
    await services.runner.start()
    await asyncio.sleep(AWAKE_S + 0.5)
    client = DBOSClient(system_database_url=durable_url(settings.database_url), serializer=JsonCheckpoints())
    options: EnqueueOptions = {
        "workflow_name": WORKFLOW,
        "queue_name": LONG,
        "workflow_id": "job_unknown",
        "app_version": services.durable.version,
    }
    await asyncio.to_thread(client.enqueue, options, "job_unknown")
    async with asyncio.timeout(10):
        while not (await services.durable.states(["job_unknown"]))["job_unknown"].ended:
            await asyncio.sleep(0.01)
    client.destroy()


async def test_work_whose_delay_has_ended_is_begun(services: Services) -> None:
    await services.runner.start()
    await services.durable.enqueue(WORKFLOW, "job_unknown", SHORT, delay_s=AWAKE_S + 0.5)
    async with asyncio.timeout(15):
        while not (await services.durable.states(["job_unknown"]))["job_unknown"].ended:
            await asyncio.sleep(0.01)
