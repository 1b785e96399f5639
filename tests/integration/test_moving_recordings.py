"""What clients see while recordings move to S3 and deletes wait for it; and the same races on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from sqlalchemy import text

from backend.config import Settings
from backend.services.lifecycle.drain import DrainResult
from backend.services.storage import StorageConfig, StorageService
from backend.wiring.services import Services
from tests.conftest import api
from tests.support.depot import Depot, files_in, keys_in, open_depot, until
from tests.support.servers import FaultProxy, S3Server

pytestmark = pytest.mark.anyio

MakeConfig = Callable[..., StorageConfig]


@pytest.fixture
def settings(settings: Settings, faulty: FaultProxy, s3_config: MakeConfig, upload_dir: Path) -> Settings:
    config = s3_config(faulty.server, upload_dir=str(upload_dir), s3_retry_after_s=0.2, s3_read_timeout_s=1)
    return settings.model_copy(update={"storage": config})


@pytest.fixture
async def house(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, Services, Depot]]:
    async with api(settings) as (client, services):
        local = StorageService(settings.storage.model_copy(update={"storage_backend": "local"}))
        depot = Depot(services.storage, local, services.database, services.drain, services.deletes, services.metrics)
        yield client, services, depot
        await local.close()


async def fetch(client: httpx.AsyncClient, conversation_id: str) -> bytes:
    answer = await client.get(f"/conversations/{conversation_id}/audio")
    if answer.status_code != 307:
        assert answer.status_code == 200, answer.text
        return answer.content
    async with httpx.AsyncClient() as outside:
        found = await outside.get(answer.headers["location"])
    assert found.status_code == 200, found.text
    return found.content


async def test_downloads_during_a_drain_are_always_whole(
    house: tuple[httpx.AsyncClient, Services, Depot],
) -> None:
    client, services, depot = house
    contents = {await depot.record(b"%d" % number * 100_000): b"%d" % number * 100_000 for number in range(8)}
    done = asyncio.Event()
    fetched = 0

    async def keep_fetching() -> None:
        nonlocal fetched
        while not done.is_set():
            for conversation_id, data in contents.items():
                assert await fetch(client, conversation_id) == data
                fetched += 1

    async with asyncio.TaskGroup() as group:
        fetching = group.create_task(keep_fetching())
        assert (await services.drain.drain_all(concurrency=3)).moved == 24
        done.set()
    assert fetching.done() and fetched >= 8


@pytest.mark.parametrize("moment", ["found", "opened"])
async def test_a_recording_that_moves_while_it_is_fetched_is_found_in_its_new_place(
    house: tuple[httpx.AsyncClient, Services, Depot], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    client, services, depot = house
    conversation_id = await depot.record(b"sound")
    audio = await depot.audio(conversation_id)
    owner, name = (services.storage, "access") if moment == "found" else (anyio, "open_file")
    real, moved = getattr(owner, name), False

    async def move_first(*arguments: Any, **options: Any) -> Any:
        nonlocal moved
        if not moved:
            moved = True
            assert (await services.drain.drain_object(audio.id)).result == DrainResult.MOVED
        return await real(*arguments, **options)

    monkeypatch.setattr(owner, name, move_first)
    assert await fetch(client, conversation_id) == b"sound" and moved


async def test_storage_info_and_metrics_show_how_far_s3_is_behind(
    house: tuple[httpx.AsyncClient, Services, Depot],
) -> None:
    client, services, depot = house
    await depot.record(b"x" * 1000)
    before = (await client.get("/audio/storage-info")).json()
    assert before["drain_pending_objects"] == 3 and before["drain_pending_bytes"] > 1000
    assert before["drain_oldest_s"] > 0 and before["drain_parked_objects"] == 0
    assert "aperta_drain_pending_objects 3.0" in (await client.get("/metrics")).text
    await services.drain.drain_all()
    after = (await client.get("/audio/storage-info")).json()
    assert (after["drain_pending_objects"], after["drain_pending_bytes"], after["drain_oldest_s"]) == (0, 0, 0)
    assert "aperta_drain_pending_objects 0.0" in (await client.get("/metrics")).text


async def test_storage_info_and_metrics_answer_without_a_database(
    house: tuple[httpx.AsyncClient, Services, Depot],
) -> None:
    client, services, depot = house
    await depot.record()
    async with services.database.transaction() as session:
        await session.execute(text("DROP TABLE stored_objects"))
    info = await client.get("/audio/storage-info")
    assert info.status_code == 200 and info.json()["drain_pending_objects"] is None
    assert (await client.get("/metrics")).status_code == 200


async def test_a_delete_that_waits_for_s3_says_what_is_left(
    house: tuple[httpx.AsyncClient, Services, Depot], faulty: FaultProxy
) -> None:
    client, services, depot = house
    conversation_id = await depot.record()
    await services.drain.drain_all()
    faulty.mode = "refuse"
    answer = await client.delete(f"/conversations/{conversation_id}")
    assert answer.status_code == 202 and answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["conversation_id"] == conversation_id and len(body["left"]) == 3 and "S3" in body["reason"]
    for path in ("", "/audio", "/transcript"):
        assert (await client.get(f"/conversations/{conversation_id}{path}")).status_code == 404
    assert (await client.get("/conversations")).json()["total"] == 0
    assert (await client.delete(f"/conversations/{conversation_id}")).status_code == 404
    faulty.mode = "pass"

    async def finished() -> bool:
        return (await services.deletes.finish_pending()).finished == 1

    await until(finished)


@pytest.fixture
async def postgres_depot(
    postgres_url: str, swift: S3Server, s3_config: MakeConfig, upload_dir: Path
) -> AsyncIterator[Depot]:
    async with open_depot(s3_config(swift, upload_dir=str(upload_dir)), postgres_url) as opened:
        yield opened


async def test_drains_and_deletes_race_on_postgresql(
    postgres_depot: Depot, raw_s3: Any, bucket: str, upload_dir: Path, swift: S3Server, s3_config: MakeConfig
) -> None:
    depot = postgres_depot
    kept = {await depot.record(b"%d" % number): b"%d" % number for number in range(5)}
    doomed = [await depot.record() for _ in range(5)]
    assert (await depot.drain.backlog()).objects == 30

    async def delete_all() -> None:
        for conversation_id in doomed:
            assert (await depot.deletes.delete(conversation_id)).complete

    config = s3_config(swift, upload_dir=str(upload_dir))
    async with open_depot(config, depot.database.engine.url.render_as_string(hide_password=False)) as other:
        *reports, _ = await asyncio.gather(
            depot.drain.drain_all(concurrency=3), other.drain.drain_all(concurrency=3), delete_all()
        )
    assert not any(report.stopped or report.failed or report.parked for report in reports)
    assert files_in(upload_dir) == [] and len(await depot.rows()) == 15
    for conversation_id, data in kept.items():
        assert await depot.read((await depot.audio(conversation_id)).id) == data
        assert len(keys_in(raw_s3, bucket, conversation_id)) == 3
    assert [key for conversation_id in doomed for key in keys_in(raw_s3, bucket, conversation_id)] == []
