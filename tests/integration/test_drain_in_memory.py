"""What the drain decides, whatever the stores: seen with a store in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.concurrency.lanes import ThreadLane
from backend.errors import ObjectRefused, StorageUnavailable
from backend.services.lifecycle.drain import DrainReport
from backend.services.storage import StorageConfig, StorageService, Stores
from backend.services.storage.placement.parts import open_parts
from backend.services.storage.stores.local.store import LocalStore
from backend.services.storage.stores.memory import MemoryStore
from tests.support.depot import Depot, open_depot

pytestmark = pytest.mark.anyio


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/rows.db"


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


async def test_an_object_that_is_refused_is_parked_with_the_reason(in_memory: Depot, memory: MemoryStore) -> None:
    await in_memory.record()
    memory.failure = ObjectRefused("S3 refused it: EntityTooLarge.")
    assert (await in_memory.drain.drain_all()).parked == 3
    assert {row.parked for row in await in_memory.rows()} == {"S3 refused it: EntityTooLarge."}
    memory.failure = None
    assert await in_memory.drain.drain_all() == DrainReport(), "what is parked waits for somebody"


async def test_what_an_earlier_move_left_is_taken_over_whatever_the_store(
    in_memory: Depot, memory: MemoryStore
) -> None:
    audio = await in_memory.audio(await in_memory.record(b"sound"))
    left = memory.locator("audio", in_memory.storage.key(audio.locator))
    memory.objects[left] = b"sound"
    assert (await in_memory.drain.drain_object(audio.id)).locator == left
    assert list(memory.objects) == [left]


async def test_a_dead_store_is_not_hammered(in_memory: Depot, memory: MemoryStore) -> None:
    for _ in range(10):
        await in_memory.record()
    memory.failure, asked = StorageUnavailable("Down."), memory.calls
    assert (await in_memory.drain.drain_all(concurrency=2)).stopped == "Down."
    assert memory.calls - asked <= 2


async def test_a_pass_that_is_bounded_in_time_leaves_the_rest(in_memory: Depot) -> None:
    await in_memory.record()
    report = await in_memory.drain.drain_all(max_seconds=0)
    assert (report.moved, report.stopped, (await in_memory.drain.backlog()).objects) == (0, None, 3)


async def test_a_local_file_left_by_a_killed_drain_is_swept_up(in_memory: Depot, memory: MemoryStore) -> None:
    conversation_id = await in_memory.record(b"sound")
    audio = await in_memory.audio(conversation_id)
    await in_memory.drain.drain_all()
    for name in ("meeting.wav", "other.wav"):
        path = Path(audio.locator).with_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"sound" if name == "meeting.wav" else b"SOUND")
    in_memory.drain._swept = False
    await in_memory.drain.drain_all()
    assert [path.name for path in Path(audio.locator).parent.iterdir()] == ["other.wav"], "other bytes stay"


async def test_a_local_file_that_is_the_last_copy_is_not_swept_up(in_memory: Depot, memory: MemoryStore) -> None:
    conversation_id = await in_memory.record(b"sound")
    audio = await in_memory.audio(conversation_id)
    await in_memory.drain.drain_all()
    Path(audio.locator).parent.mkdir(parents=True, exist_ok=True)
    Path(audio.locator).write_bytes(b"sound")
    moved = await in_memory.audio(conversation_id)
    del memory.objects[moved.locator]
    in_memory.drain._swept = False
    await in_memory.drain.drain_all()
    assert Path(audio.locator).read_bytes() == b"sound"
