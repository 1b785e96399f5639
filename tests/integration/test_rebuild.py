"""Rebuild: the objects alone bring the database back."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from backend.database.migrate import migrate
from backend.database.models import Conversation
from backend.database.session import Database
from backend.domain.manifest import manifest_of
from backend.domain.states.conversations import ConversationStatus
from backend.services.reconciliation import RebuildReport, Scope
from backend.services.storage import StorageConfig, StorageService
from backend.wiring.services import Services
from tests.support.fixtures_reconciliation import AT_ONCE, Keeper, reconciliation
from tests.support.media import tone, write
from tests.support.recordings import change, keep_conversation, keep_failed, open_database, rows_of
from tests.support.servers import FaultProxy

pytestmark = pytest.mark.anyio


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[Database]:
    database = await open_database(tmp_path / "empty.db")
    yield database
    await database.close()


async def rebuild(keeper: Keeper, database: Database, *, apply: bool = True) -> RebuildReport:
    return await reconciliation(keeper.storage, database).rebuild(apply=apply)


async def test_an_empty_database_is_rebuilt_row_by_row(keeper: Keeper, empty: Database) -> None:
    for number in range(5):
        await keep_conversation(
            keeper.storage, keeper.database, title=f"Größe {number}", filename=f"a b+c {number}.wav"
        )
    await keep_failed(keeper.storage, keeper.database)
    report = await rebuild(keeper, empty)
    assert (report.manifests, report.rebuilt, report.present, report.exit_code) == (6, 6, 0, 0)
    assert await rows_of(empty) == await rows_of(keeper.database)
    again = reconciliation(keeper.storage, empty)
    assert (await again.rebuild(apply=True)).present == 6


async def test_a_second_run_writes_nothing(keeper: Keeper, empty: Database) -> None:
    await keep_conversation(keeper.storage, keeper.database)
    await rebuild(keeper, empty)
    before = await rows_of(empty)
    report = await rebuild(keeper, empty)
    assert (report.rebuilt, report.present, report.exit_code) == (0, 1, 0)
    assert await rows_of(empty) == before


async def test_what_is_missing_is_added_to_what_is_there(keeper: Keeper) -> None:
    kept = [await keep_conversation(keeper.storage, keeper.database) for _ in range(3)]
    before = await rows_of(keeper.database)
    await change(keeper.database, sa.delete(Conversation).where(Conversation.id == kept[1].id))
    report = await rebuild(keeper, keeper.database)
    assert (report.rebuilt, report.present) == (1, 2)
    assert await rows_of(keeper.database) == before


async def test_a_dry_run_writes_nothing(keeper: Keeper, empty: Database) -> None:
    await keep_conversation(keeper.storage, keeper.database)
    report = await rebuild(keeper, empty, apply=False)
    assert (report.rebuilt, report.applied) == (1, False)
    assert not any((await rows_of(empty)).values())


async def test_voices_are_not_in_the_manifest(keeper: Keeper, empty: Database) -> None:
    await keep_conversation(keeper.storage, keeper.database)
    await rebuild(keeper, empty)
    assert (await rows_of(empty, "participant_voices"))["participant_voices"] == []
    [first, _] = (await rows_of(empty, "participants"))["participants"]
    assert "Ada Byron" in first and "Speaker 1" in first


async def test_a_conversation_that_is_being_deleted_does_not_come_back(keeper: Keeper) -> None:
    await keep_conversation(keeper.storage, keeper.database)
    await change(keeper.database, sa.update(Conversation).values(deleted_at=datetime.now(UTC), transcript=None))
    before = await rows_of(keeper.database)
    report = await rebuild(keeper, keeper.database)
    assert (report.rebuilt, await rows_of(keeper.database)) == (0, before)


async def test_a_failed_row_without_objects_gives_way_to_a_complete_manifest(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database)
    before = await rows_of(keeper.database)
    await change(keeper.database, sa.delete(Conversation))
    async with keeper.database.transaction() as session:
        row = Conversation(id=kept.id, status=ConversationStatus.FAILED, filename="a.wav", created_at=datetime.now(UTC))
        session.add(row)
    assert (await rebuild(keeper, keeper.database)).rebuilt == 1
    assert await rows_of(keeper.database) == before


async def test_objects_are_found_where_they_moved(s3_keeper: Keeper, empty: Database, tmp_path: Path) -> None:
    """Saved locally during an outage, manifest included; the recording has drained to S3 since."""
    local = StorageService(_local_config(s3_keeper))
    async with local:
        kept = await keep_conversation(local, s3_keeper.database, sound=b"sound")
    in_s3 = s3_keeper.stores[0].locator("audio", kept.audio.key)
    s3_keeper.overwrite(in_s3, b"sound")
    s3_keeper.remove(kept.audio.locator)
    report = await rebuild(s3_keeper, empty)
    assert (report.rebuilt, report.gaps) == (1, [])
    rows = await rows_of(empty)
    assert in_s3 in rows["conversations"][0]
    assert sorted(row[2] for row in rows["stored_objects"]) == ["local", "local", "s3"]


async def test_what_cannot_be_rebuilt_is_told(keeper: Keeper, empty: Database) -> None:
    damaged = await keep_conversation(keeper.storage, keeper.database)
    assert damaged.manifest is not None
    keeper.overwrite(damaged.manifest.locator, b"{}")
    bare = await keeper.storage.save_audio_file(b"x", "conv_bare", "bare.wav")
    report = await rebuild(keeper, empty)
    told = {gap.subject: gap.reason for gap in report.gaps}
    assert (report.rebuilt, report.gap_count, report.exit_code) == (0, 2, 1)
    assert "manifest_version" in told[damaged.manifest.locator]
    assert "no manifest" in told["conv_bare"]
    assert await keeper.read(bare.locator) == b"x"


async def test_a_conversation_comes_back_without_an_object_that_is_gone(keeper: Keeper, empty: Database) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database)
    keeper.remove(kept.audio.locator)
    report = await rebuild(keeper, empty)
    assert (report.rebuilt, report.gap_count, report.exit_code) == (1, 1, 1)
    assert kept.audio.key in report.gaps[0].reason
    [audio] = [row for row in (await rows_of(empty))["stored_objects"] if "audio" in row]
    assert any(str(value).startswith("lost: ") for value in audio)
    service = reconciliation(keeper.storage, empty)
    report = await service.rebuild(apply=True)
    assert report.rebuilt == 0


async def test_of_several_manifests_the_best_counts(keeper: Keeper, empty: Database) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database)
    earlier = {"manifest_version": 1} | await _failed_manifest(keeper, kept.id)
    await keeper.storage.save_metadata(earlier, kept.id, filename="aaa.wav")
    report = await rebuild(keeper, empty)
    assert (report.manifests, report.rebuilt, report.present) == (2, 1, 1)
    assert await rows_of(empty) == await rows_of(keeper.database)


async def test_a_silent_store_is_told(
    s3_keeper: Keeper, empty: Database, faulty: FaultProxy, s3_config, tmp_path: Path
) -> None:
    kept = await keep_conversation(s3_keeper.storage, s3_keeper.database)
    assert kept.manifest is not None
    here = s3_keeper.stores[1].locator("metadata", kept.manifest.key)
    s3_keeper.overwrite(here, await s3_keeper.read(kept.manifest.locator))
    config = s3_config(faulty.server, upload_dir=str(tmp_path / "uploads"), s3_bucket_name=s3_keeper.bucket)
    faulty.mode = "refuse"
    async with StorageService(config) as storage:
        report = await reconciliation(storage, empty).rebuild(apply=True)
    assert (report.rebuilt, report.exit_code) == (0, 2), "nobody knows where the recording is"
    assert {item.store for item in report.unchecked} == {"s3", "local"}
    assert not (await rows_of(empty))["conversations"]


async def test_a_folder_that_was_copied_elsewhere_is_enough(
    local_keeper: Keeper, empty: Database, tmp_path: Path
) -> None:
    for _ in range(2):
        await keep_conversation(local_keeper.storage, local_keeper.database)
    shutil.copytree(local_keeper.upload_dir, tmp_path / "copy")
    config = _local_config(local_keeper).model_copy(update={"upload_dir": str(tmp_path / "copy")})
    async with StorageService(config) as storage:
        service = reconciliation(storage, empty)
        assert (await service.rebuild(apply=True)).rebuilt == 2
        assert (await service.usage()).holdings[0].objects == 2


async def test_what_the_pipeline_leaves_is_clean_and_can_be_rebuilt(
    opened: tuple[httpx.AsyncClient, Services], empty: Database, tmp_path: Path
) -> None:
    client, services = opened
    sound = write(tmp_path / "sound.wav", tone(2)).read_bytes()
    for title in ("first", "second"):
        reply = await client.post("/audio/process", files={"file": ("a b.wav", sound)}, data={"title": title})
        assert reply.status_code == 200, reply.text
    service = reconciliation(services.storage, services.database)
    assert (await service.verify(Scope(deep=True, grace=AT_ONCE))).status == "clean"
    assert (await reconciliation(services.storage, empty).rebuild(apply=True)).rebuilt == 2
    assert await rows_of(empty) == await rows_of(services.database)


async def test_rows_are_compared_and_rebuilt_on_postgresql(
    local_keeper: Keeper, postgres_url: str, tmp_path: Path
) -> None:
    await migrate(postgres_url)
    database = Database(postgres_url)
    keeper = Keeper(local_keeper.storage, database, local_keeper.upload_dir, None, "")
    try:
        kept = [await keep_conversation(keeper.storage, database) for _ in range(3)]
        before = await rows_of(database)
        assert (await keeper.verify(deep=True)).status == "clean"
        await change(database, sa.delete(Conversation).where(Conversation.id == kept[0].id))
        assert (await keeper.repair()).counts == {"restore": 3}
        await change(database, sa.delete(Conversation))
        assert (await rebuild(keeper, database)).rebuilt == 3
        assert await rows_of(database) == before
        keeper.remove(kept[0].audio.locator)
        assert (await keeper.repair()).counts == {"mark_lost": 1}
        usage = await keeper.reconciliation.usage()
        assert (usage.lost, sum(item.objects for item in usage.holdings)) == (1, 9)
    finally:
        await database.close()


async def test_a_value_that_the_database_refuses_is_told(local_keeper: Keeper, postgres_url: str) -> None:
    """PostgreSQL takes no NUL in a text."""
    kept = await keep_conversation(local_keeper.storage, local_keeper.database)
    assert kept.manifest is not None
    document = await local_keeper.read(kept.manifest.locator)
    local_keeper.overwrite(kept.manifest.locator, document.replace(b'meeting.wav",', b'meet\\u0000ing.wav",', 1))
    await migrate(postgres_url)
    database = Database(postgres_url)
    try:
        report = await rebuild(local_keeper, database)
    finally:
        await database.close()
    assert (report.rebuilt, report.gap_count) == (0, 1)
    assert "The database refuses" in report.gaps[0].reason


def _local_config(keeper: Keeper) -> StorageConfig:
    return StorageConfig(_env_file=None, upload_dir=str(keeper.upload_dir))


async def _failed_manifest(keeper: Keeper, conversation_id: str) -> dict[str, object]:
    async with keeper.database.transaction() as session:
        conversation = await session.get(Conversation, conversation_id)
        assert conversation is not None
        return manifest_of(conversation, [], status="failed", completed_at=None, error="The engine broke.")
