"""Repair: what verify finds is put right, and nothing that may be a recording is lost by it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from backend.database.models import Conversation, StoredObjectRow
from backend.services.reconciliation import ActionKind, Grace, RepairReport, Scope
from backend.services.storage import StorageService
from backend.services.storage.keys import distinct_key
from tests.support.fixtures_reconciliation import AT_ONCE, Keeper, reconciliation
from tests.support.recordings import change, keep_conversation, rows_of
from tests.support.servers import FaultProxy

pytestmark = pytest.mark.anyio


def done(report: RepairReport) -> list[tuple[str, str]]:
    return sorted((action.kind.value, action.locator) for action in report.actions)


async def forget(keeper: Keeper, conversation_id: str) -> None:
    await change(keeper.database, sa.delete(Conversation).where(Conversation.id == conversation_id))


async def object_row(keeper: Keeper, locator: str) -> StoredObjectRow | None:
    async with keeper.database.transaction() as session:
        query = sa.select(StoredObjectRow).where(StoredObjectRow.locator == locator)
        return (await session.execute(query)).scalar_one_or_none()


async def test_nothing_is_changed_unless_told(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database)
    keeper.remove(kept.audio.locator)
    stray = await keeper.storage.save_audio_file(b"x", "conv_nobody", "stray.wav")
    before = await rows_of(keeper.database), keeper.everything()
    report = await keeper.repair(apply=False)
    assert done(report) == sorted([("mark_lost", kept.audio.locator), ("quarantine", stray.locator)])
    assert (report.applied, report.exit_code) == (False, 1)
    assert (await rows_of(keeper.database), keeper.everything()) == before


async def test_a_dry_repair_says_what_a_real_one_does(keeper: Keeper) -> None:
    for _ in range(2):
        kept = await keep_conversation(keeper.storage, keeper.database)
    await forget(keeper, kept.id)
    await keeper.storage.save_audio_file(b"x", kept.id, "second.wav")
    dry, real = await keeper.repair(apply=False), await keeper.repair()
    assert dry.counts == real.counts == {"restore": 3, "quarantine": 1}


async def test_after_a_repair_all_is_clean(keeper: Keeper) -> None:
    kept = [await keep_conversation(keeper.storage, keeper.database) for _ in range(3)]
    await keeper.storage.save_audio_file(b"x", "conv_nobody", "stray.wav")
    await keeper.storage.save_audio_file(b"x", kept[0].id, "again.wav")
    await change(keeper.database, sa.delete(StoredObjectRow).where(StoredObjectRow.locator == kept[1].audio.locator))
    await forget(keeper, kept[2].id)
    (keeper.upload_dir / ".spool" / "left.part").write_bytes(b"x")
    report = await keeper.repair()
    assert report.exit_code == 0, report
    assert (await keeper.verify(deep=True)).status == "clean"


async def test_a_recording_that_lost_its_row_is_attached_again(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database)
    before = await rows_of(keeper.database)
    await change(keeper.database, sa.delete(StoredObjectRow).where(StoredObjectRow.kind == "audio"))
    await change(keeper.database, sa.update(Conversation).values(recording_url=None))
    report = await keeper.repair()
    assert done(report) == [("reattach", kept.audio.locator)]
    row = await object_row(keeper, kept.audio.locator)
    assert row is not None and (row.sha256, row.size_bytes) == (kept.audio.sha256, kept.audio.size_bytes)
    assert (await rows_of(keeper.database, "conversations"))["conversations"] == before["conversations"]


async def test_a_second_recording_of_a_conversation_goes_to_the_quarantine(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database)
    second = await keeper.storage.save_audio_file(b"second", kept.id, "second.wav")
    [action] = (await keeper.repair()).actions
    assert (action.kind, action.locator) == (ActionKind.QUARANTINE, second.locator)
    assert action.target is not None and keeper.everything()[action.target] == b"second"
    assert second.locator not in keeper.everything()


async def test_what_belongs_to_nobody_goes_to_the_quarantine(keeper: Keeper) -> None:
    stray = await keeper.storage.save_audio_file(b"stray", "conv_nobody", "stray.wav")
    [action] = (await keeper.repair()).actions
    assert action.kind == ActionKind.QUARANTINE and action.target is not None
    assert keeper.everything() == {action.target: b"stray"}
    assert "quarantine" in action.target and stray.key in action.target


async def test_a_conversation_comes_back_by_its_manifest(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database, title="Standup")
    before = await rows_of(keeper.database)
    await forget(keeper, kept.id)
    report = await keeper.repair()
    assert report.counts == {"restore": 3}
    assert await rows_of(keeper.database) == before


async def test_a_manifest_that_is_damaged_brings_nothing_back_and_nothing_is_lost(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database)
    await forget(keeper, kept.id)
    assert kept.manifest is not None
    keeper.overwrite(kept.manifest.locator, b'{"manifest_version": 1, "half')
    before = sorted(keeper.everything().values())
    assert (await keeper.repair()).counts == {"quarantine": 3}
    assert sorted(keeper.everything().values()) == before


async def test_a_manifest_of_a_newer_version_is_left_alone_with_its_objects(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database)
    await forget(keeper, kept.id)
    assert kept.manifest is not None
    newer = json.loads(await keeper.read(kept.manifest.locator)) | {"manifest_version": 2}
    keeper.overwrite(kept.manifest.locator, json.dumps(newer).encode())
    before = keeper.everything()
    report = await keeper.repair()
    assert (report.counts, report.failed, report.exit_code) == ({"leave": 3}, 3, 1)
    assert "newer Aperta" in (report.actions[0].error or "")
    assert keeper.everything() == before


async def test_a_manifest_that_names_objects_of_others_is_none(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database)
    other = await keep_conversation(keeper.storage, keeper.database)
    await forget(keeper, kept.id)
    assert kept.manifest is not None
    forged = json.loads(await keeper.read(kept.manifest.locator))
    forged["objects"][0]["key"] = other.audio.key
    keeper.overwrite(kept.manifest.locator, json.dumps(forged).encode())
    assert (await keeper.repair()).counts == {"quarantine": 3}


async def test_a_row_whose_object_is_gone_says_so(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database)
    keeper.remove(kept.audio.locator)
    report = await keeper.repair()
    assert (report.counts, report.lost, report.exit_code) == ({"mark_lost": 1}, 1, 1)
    row = await object_row(keeper, kept.audio.locator)
    assert row is not None and (row.parked or "").startswith("lost: missing")
    [finding] = (await keeper.verify()).findings
    assert "marked as lost" in finding.detail


async def test_the_mark_goes_when_the_object_is_back(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database, sound=b"sound")
    keeper.remove(kept.audio.locator)
    await keeper.repair()
    keeper.overwrite(kept.audio.locator, b"noise")
    assert (await keeper.repair()).counts == {"mark_lost": 1}, "the right size is not enough"
    keeper.overwrite(kept.audio.locator, b"sound")
    report = await keeper.repair()
    assert (report.counts, report.exit_code) == ({"clear_mark": 1}, 0)
    row = await object_row(keeper, kept.audio.locator)
    assert row is not None and row.parked is None


@pytest.mark.parametrize("drained_under_its_second_name", [False, True])
async def test_a_row_points_to_the_copy_that_is_left(s3_keeper: Keeper, *, drained_under_its_second_name: bool) -> None:
    kept = await keep_conversation(s3_keeper.storage, s3_keeper.database, sound=b"sound")
    s3, local = s3_keeper.stores
    key = distinct_key(kept.audio.key, kept.audio.sha256[:12]) if drained_under_its_second_name else kept.audio.key
    copy = local.locator("audio", key)
    s3_keeper.overwrite(copy, b"sound")
    s3_keeper.remove(kept.audio.locator)
    report = await s3_keeper.repair()
    assert [(a.kind, a.target) for a in report.actions] == [("point_elsewhere", copy)]
    assert report.exit_code == 0
    row = await object_row(s3_keeper, copy)
    assert row is not None and row.store == local.name
    [conversation] = (await rows_of(s3_keeper.database, "conversations"))["conversations"]
    assert copy in conversation and kept.audio.locator not in conversation
    assert s3.name == "s3"


async def test_a_copy_of_other_bytes_is_no_copy(s3_keeper: Keeper) -> None:
    kept = await keep_conversation(s3_keeper.storage, s3_keeper.database, sound=b"sound")
    s3_keeper.overwrite(s3_keeper.stores[1].locator("audio", kept.audio.key), b"noise")
    s3_keeper.remove(kept.audio.locator)
    assert (await s3_keeper.repair()).counts == {"mark_lost": 1, "quarantine": 1}


async def test_a_damaged_object_gives_way_to_its_intact_copy(s3_keeper: Keeper) -> None:
    kept = await keep_conversation(s3_keeper.storage, s3_keeper.database, sound=b"sound")
    copy = s3_keeper.stores[1].locator("audio", kept.audio.key)
    s3_keeper.overwrite(copy, b"sound")
    s3_keeper.overwrite(kept.audio.locator, b"noise")
    report = await s3_keeper.repair(deep=True)
    assert report.counts == {"point_elsewhere": 1, "quarantine": 1}
    assert (await s3_keeper.verify(deep=True)).status == "clean"
    assert sorted(s3_keeper.everything().values()).count(b"noise") == 1, "kept in quarantine"


async def test_what_uploads_left_behind_is_removed(s3_keeper: Keeper) -> None:
    (s3_keeper.upload_dir / ".spool" / "left.part").write_bytes(b"x")
    key = "audio/conv_a/2026/01/15/forgotten.wav"
    s3_keeper.s3.create_multipart_upload(Bucket=s3_keeper.bucket, Key=key)
    assert (await s3_keeper.repair()).counts == {"remove": 1, "abort": 1}
    assert not list((s3_keeper.upload_dir / ".spool").glob("*.part"))
    assert "Uploads" not in s3_keeper.s3.list_multipart_uploads(Bucket=s3_keeper.bucket)


async def test_nothing_is_quarantined_while_a_store_that_may_have_the_manifest_is_silent(
    s3_keeper: Keeper, faulty: FaultProxy, s3_config, tmp_path: Path
) -> None:
    config = s3_config(faulty.server, upload_dir=str(tmp_path / "uploads"), s3_bucket_name=s3_keeper.bucket)
    faulty.mode = "refuse"
    stray = s3_keeper.stores[1].locator("audio", "conv_nobody/2026/01/15/stray.wav")
    s3_keeper.overwrite(stray, b"stray")
    async with StorageService(config) as storage:
        report = await reconciliation(storage, s3_keeper.database).repair(Scope(grace=AT_ONCE), apply=True)
    assert (report.counts, report.failed, report.exit_code) == ({"leave": 1}, 1, 2)
    assert Path(stray).read_bytes() == b"stray"


async def test_the_quarantine_is_emptied_of_what_is_old_enough(keeper: Keeper) -> None:
    await keep_conversation(keeper.storage, keeper.database)
    kept = keeper.everything()
    await keeper.storage.save_audio_file(b"stray", "conv_nobody", "stray.wav")
    await keeper.repair()
    young = await keeper.reconciliation.empty_quarantine(older_than_s=3600, apply=True)
    dry = await keeper.reconciliation.empty_quarantine(older_than_s=-60, apply=False)
    assert (young.objects, dry.objects, dry.bytes) == (0, 1, 5)
    assert len(keeper.everything()) == len(kept) + 1
    assert (await keeper.reconciliation.empty_quarantine(older_than_s=-60, apply=True)).objects == 1
    assert keeper.everything() == kept


async def test_usage_counts_what_is_where(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database, sound=bytes(1234))
    await keeper.storage.save_audio_file(b"stray", "conv_nobody", "stray.wav")
    await keeper.repair(grace=replace(Grace(), orphan_s=-60))
    (keeper.upload_dir / ".spool" / "in-progress.part").write_bytes(b"123")
    usage = await keeper.reconciliation.usage()
    held = {(item.store, item.kind): (item.objects, item.bytes) for item in usage.holdings}
    assert held[kept.audio.store, "audio"] == (1, 1234) and len(held) == 3
    assert (usage.spool.objects, usage.spool.bytes) == (1, 3)
    assert (usage.quarantine[kept.audio.store].objects, usage.quarantine[kept.audio.store].bytes) == (1, 5)
    assert usage.free_bytes and not usage.lost and not usage.unchecked


async def test_a_large_object_keeps_its_description_in_quarantine(s3_keeper: Keeper) -> None:
    """Above the size that S3 copies in one request, the copy is made of parts."""
    data = bytes(70 * 1024 * 1024)
    stored = await s3_keeper.storage.save_audio_file(data, "conv_nobody", "Größe.wav", content_type="audio/wav")
    moved_to = await s3_keeper.stores[0].move_to_quarantine(stored.locator)
    key = moved_to.removeprefix(f"s3://{s3_keeper.bucket}/")
    head = s3_keeper.s3.head_object(Bucket=s3_keeper.bucket, Key=key)
    assert (head["ContentLength"], head["ContentType"]) == (len(data), "audio/wav")
    assert head["Metadata"]["sha256"] == hashlib.sha256(data).hexdigest()
