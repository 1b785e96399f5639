"""A delete ends, once it was asked for: with a store that is down, with a job that still stores, after a kill -9."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from backend.concurrency.lanes import ThreadLane
from backend.database import conversations
from backend.database.objects import row_of
from backend.errors import NotFound, StorageMisconfigured, StorageUnavailable
from backend.services.conversations.deletion import DeletesReport, DeletionService
from backend.services.storage import StorageConfig, StorageService, Stores
from backend.services.storage.placement.parts import open_parts
from backend.services.storage.stores.local.store import LocalStore
from backend.services.storage.stores.memory import MemoryStore
from tests.support.depot import AT, Depot, files_in, keys_in, open_depot, until
from tests.support.servers import FaultProxy
from tests.support.victim import DELETE_POINTS, Victim, victim_of

pytestmark = pytest.mark.anyio

TABLES = ("conversations", "participants", "segments", "stored_objects")


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/rows.db"


@pytest.fixture
async def depot(
    faulty: FaultProxy, s3_config: Callable[..., StorageConfig], upload_dir: Path, database_url: str
) -> AsyncIterator[Depot]:
    config = s3_config(faulty.server, upload_dir=str(upload_dir), s3_retry_after_s=0.2, s3_read_timeout_s=1)
    async with open_depot(config, database_url) as opened:
        yield opened


@pytest.fixture
def victim(faulty: FaultProxy, bucket: str, tmp_path: Path) -> Victim:
    return victim_of(faulty.server, bucket, tmp_path)


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore("memory")


@pytest.fixture
async def in_memory(
    memory: MemoryStore, local_config: StorageConfig, upload_dir: Path, database_url: str
) -> AsyncIterator[Depot]:
    fallback = LocalStore(str(upload_dir), ThreadLane("disk", 4))
    storage = StorageService(parts=open_parts(local_config, Stores(memory, fallback)))
    async with open_depot(local_config, database_url, storage) as opened:
        yield opened


async def finishes_one(deletes: DeletionService) -> bool:
    return (await deletes.finish_pending()).finished == 1


async def counts(depot: Depot) -> dict[str, int]:
    async with depot.database.transaction() as session:
        return {name: (await session.execute(text(f"SELECT count(*) FROM {name}"))).scalar_one() for name in TABLES}


async def assert_unseen(depot: Depot, conversation_id: str) -> None:
    async with depot.database.transaction() as session:
        with pytest.raises(NotFound):
            await conversations.get_conversation(session, conversation_id)
        assert await conversations.list_conversations(session, status=None, limit=9, offset=0) == ([], 0)


@pytest.mark.parametrize("place", ["s3", "local"])
async def test_a_delete_takes_objects_and_rows(
    depot: Depot, raw_s3: Any, bucket: str, upload_dir: Path, place: str
) -> None:
    conversation_id = await depot.record_in(depot.storage if place == "s3" else depot.local)
    assert {row.store for row in await depot.rows()} == {place}
    deletion = await depot.deletes.delete(conversation_id)
    assert deletion.complete and deletion.reason is None
    assert set((await counts(depot)).values()) == {0}
    assert keys_in(raw_s3, bucket, conversation_id) == [] and files_in(upload_dir) == []
    with pytest.raises(NotFound):
        await depot.deletes.delete(conversation_id)
    assert await depot.deletes.finish_pending() == DeletesReport()


@pytest.mark.parametrize("unknown", ["conv_nope", "a\0b", ""])
async def test_an_unknown_conversation_is_not_found(depot: Depot, unknown: str) -> None:
    with pytest.raises(NotFound):
        await depot.deletes.delete(unknown)


async def test_while_s3_is_down_it_is_unseen_at_once_and_gone_later(
    depot: Depot, faulty: FaultProxy, raw_s3: Any, bucket: str
) -> None:
    conversation_id = await depot.record_in(depot.storage)
    faulty.mode = "refuse"
    deletion = await depot.deletes.delete(conversation_id)
    assert set(deletion.left) == {row.locator for row in await depot.rows()} and len(deletion.left) == 3
    assert deletion.reason and "S3" in deletion.reason
    await assert_unseen(depot, conversation_id)
    assert await counts(depot) == {"conversations": 1, "participants": 0, "segments": 0, "stored_objects": 3}
    buried = await depot.conversation(conversation_id)
    assert (buried.transcript, buried.title) == (None, None) and buried.deleted_at
    with pytest.raises(NotFound):
        await depot.deletes.delete(conversation_id)
    report = await depot.deletes.finish_pending()
    assert (report.finished, report.left) == (0, 1) and report.reason
    assert await depot.drain.pending() == []

    faulty.mode = "pass"
    await until(lambda: finishes_one(depot.deletes))
    assert set((await counts(depot)).values()) == {0} and keys_in(raw_s3, bucket, conversation_id) == []


async def test_what_is_local_goes_at_once_even_if_s3_cannot_be_asked(
    depot: Depot, faulty: FaultProxy, upload_dir: Path
) -> None:
    conversation_id = await depot.record()
    faulty.mode = "refuse"
    deletion = await depot.deletes.delete(conversation_id)
    assert deletion.left == ("s3",), "a drain that was killed may have left a copy there"
    assert files_in(upload_dir) == [] and await depot.rows() == []
    faulty.mode = "pass"
    await until(lambda: finishes_one(depot.deletes))
    assert set((await counts(depot)).values()) == {0}


async def test_what_no_row_knows_of_goes_too(depot: Depot, raw_s3: Any, bucket: str, upload_dir: Path) -> None:
    conversation_id = await depot.record()
    await depot.drain.drain_all()
    await depot.local.save_audio_file(b"sound", conversation_id, "meeting.wav", at=AT)
    raw_s3.put_object(Bucket=bucket, Key=f"audio/{conversation_id}/2026/01/15/meeting-try2.wav", Body=b"sound")
    neighbour = f"audio/{conversation_id}2/2026/01/15/meeting.wav"
    raw_s3.put_object(Bucket=bucket, Key=neighbour, Body=b"sound")
    assert (await depot.deletes.delete(conversation_id)).complete
    assert files_in(upload_dir) == [] and keys_in(raw_s3, bucket, conversation_id) == [neighbour]


async def test_objects_that_a_job_stores_meanwhile_go_too(
    depot: Depot, upload_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation_id = await depot.record()
    real, added = depot.storage.delete_all, False

    async def add_one(store: str, of: str) -> None:
        nonlocal added
        await real(store, of)
        if not added and store == depot.storage.parts.stores.names[-1]:
            added = True
            late = await depot.local.save_audio_file(b"late", conversation_id, "late.wav", at=AT)
            async with depot.database.transaction() as session:
                session.add(row_of(late, conversation_id, AT))

    monkeypatch.setattr(depot.storage, "delete_all", add_one)
    assert (await depot.deletes.delete(conversation_id)).complete and added
    assert set((await counts(depot)).values()) == {0} and files_in(upload_dir) == []


@pytest.mark.parametrize("place", ["s3", "local"])
@pytest.mark.parametrize("point", DELETE_POINTS)
async def test_a_delete_that_is_killed_is_finished_later(
    depot: Depot, raw_s3: Any, bucket: str, upload_dir: Path, victim: Victim, point: str, place: str
) -> None:
    conversation_id = await depot.record_in(depot.storage if place == "s3" else depot.local)
    occurrence = "2" if point == "all objects gone" else "1"
    assert await victim("delete", point, occurrence, conversation_id) == -signal.SIGKILL
    await assert_unseen(depot, conversation_id)
    assert (await depot.drain.drain_all()).moved == 0
    assert await depot.deletes.finish_pending() == DeletesReport(finished=1)
    assert set((await counts(depot)).values()) == {0}
    assert keys_in(raw_s3, bucket, conversation_id) == [] and files_in(upload_dir) == []


async def test_the_manifest_goes_first(in_memory: Depot, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    conversation_id = await in_memory.record_in(in_memory.storage)
    order: list[str] = []
    real = memory.delete

    async def note(locator: str) -> None:
        order.append(locator.partition("://")[2].partition("/")[0])
        await real(locator)

    monkeypatch.setattr(memory, "delete", note)
    assert (await in_memory.deletes.delete(conversation_id)).complete
    assert order == ["metadata", "audio", "transcript"]


async def test_a_pass_asks_a_silent_store_once(in_memory: Depot, memory: MemoryStore) -> None:
    ids = [await in_memory.record_in(in_memory.storage) for _ in range(5)]
    memory.failure = StorageUnavailable("Down.")
    for conversation_id in ids:
        assert (await in_memory.deletes.delete(conversation_id)).reason == "Down."
    asked = memory.calls
    assert await in_memory.deletes.finish_pending() == DeletesReport(left=5, reason="Down.")
    assert memory.calls == asked + 1
    memory.failure = None
    assert await in_memory.deletes.finish_pending() == DeletesReport(finished=5)
    assert memory.objects == {}


async def test_one_delete_that_cannot_end_does_not_hold_up_the_others(in_memory: Depot, memory: MemoryStore) -> None:
    stuck, fine = [await in_memory.record_in(in_memory.storage) for _ in range(2)]
    memory.failure = StorageMisconfigured("Denied.")
    for conversation_id in (stuck, fine):
        await in_memory.deletes.delete(conversation_id)
    memory.failure = None
    async with in_memory.database.transaction() as session:
        await session.execute(
            text("UPDATE stored_objects SET locator = 's3://elsewhere/x', store = 's3' WHERE conversation_id = :id"),
            {"id": stuck},
        )
    report = await in_memory.deletes.finish_pending()
    assert (report.finished, report.left) == (1, 1) and report.reason and "S3_BUCKET_NAME" in report.reason


async def test_deletes_of_one_conversation_at_once_are_one(depot: Depot) -> None:
    conversation_id = await depot.record_in(depot.storage)
    answers = await asyncio.gather(
        *(depot.deletes.delete(conversation_id) for _ in range(5)),
        depot.deletes.finish_pending(),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, NotFound) for answer in answers) == 4
    assert not [answer for answer in answers if isinstance(answer, BaseException) and not isinstance(answer, NotFound)]
    assert set((await counts(depot)).values()) == {0}
