"""Verify: everything that is wrong between rows and stores is found, and nothing else is."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from backend.database.models import Conversation, Job, StoredObjectRow, UploadRow
from backend.domain.states.conversations import ConversationStatus
from backend.errors import InvalidInput
from backend.services.reconciliation import Bounds, Grace, Scope, VerifyReport
from backend.services.storage import StorageService
from tests.support.fixtures_reconciliation import AT_ONCE, Keeper, reconciliation
from tests.support.recordings import change, keep_conversation
from tests.support.servers import FaultProxy

pytestmark = pytest.mark.anyio


def told(report: VerifyReport) -> list[tuple[str, str]]:
    return sorted((found.kind.value, found.locator) for found in report.findings)


async def test_what_processing_leaves_is_clean(keeper: Keeper) -> None:
    for number in range(3):
        await keep_conversation(keeper.storage, keeper.database, sound=bytes(1000 * number))
    report = await keeper.verify(deep=True)
    assert (report.status, report.exit_code, report.cursor) == ("clean", 0, None)
    assert (report.checked.rows, report.checked.objects) == (9, 9)
    assert report.checked.hashed_bytes > 3000


async def test_a_missing_object_is_found(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database)
    await keep_conversation(keeper.storage, keeper.database)
    keeper.remove(kept.audio.locator)
    report = await keeper.verify()
    assert told(report) == [("missing", kept.audio.locator)]
    assert (report.status, report.exit_code, report.counts) == ("findings", 1, {"missing": 1})


async def test_another_size_is_found(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database)
    keeper.overwrite(kept.audio.locator, b"half")
    assert told(await keeper.verify()) == [("wrong_size", kept.audio.locator)]


async def test_a_flipped_bit_is_found_by_a_deep_look_only(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database, sound=b"abcdef")
    keeper.overwrite(kept.audio.locator, b"abcdeg")
    assert (await keeper.verify()).status == "clean"
    assert told(await keeper.verify(deep=True)) == [("corrupt", kept.audio.locator)]


async def test_an_object_without_a_row_is_found(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database)
    known = await keeper.storage.save_audio_file(b"x", kept.id, "again.wav")
    stray = await keeper.storage.save_audio_file(b"x", "conv_nobody", "stray.wav")
    report = await keeper.verify()
    assert told(report) == sorted([("orphan", known.locator), ("orphan", stray.locator)])
    details = {found.locator: found.detail for found in report.findings}
    assert "no such conversation" in details[stray.locator] and "no such" not in details[known.locator]


async def test_what_is_young_may_be_on_its_way(keeper: Keeper) -> None:
    await keeper.storage.save_audio_file(b"x", "conv_nobody", "stray.wav")
    assert (await keeper.verify(grace=Grace())).status == "clean"


async def test_objects_of_a_conversation_in_work_are_no_orphans(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database)
    await keeper.storage.save_audio_file(b"x", kept.id, "again.wav")
    await change(keeper.database, sa.update(Conversation).values(status=ConversationStatus.PROCESSING))
    assert (await keeper.verify()).status == "clean"


async def test_a_recording_that_a_job_waits_for_is_no_orphan(keeper: Keeper) -> None:
    stored = await keeper.storage.save_audio_file(b"x", "conv_nobody", "a.wav")
    async with keeper.database.transaction() as session:
        session.add(_job(stored.locator))
    assert (await keeper.verify()).status == "clean"


async def test_a_conversation_that_is_being_deleted_is_left_to_that(keeper: Keeper) -> None:
    kept = await keep_conversation(keeper.storage, keeper.database)
    keeper.remove(kept.audio.locator)
    await keeper.storage.save_audio_file(b"x", kept.id, "again.wav")
    await change(keeper.database, sa.update(Conversation).values(deleted_at=datetime.now(UTC)))
    assert (await keeper.verify()).status == "clean"


async def test_foreign_files_are_counted_and_left_alone(local_keeper: Keeper, tmp_path: Path) -> None:
    kept = await keep_conversation(local_keeper.storage, local_keeper.database)
    root = local_keeper.upload_dir
    (root / "README.txt").write_text("Put by somebody.")
    (root / ".hidden").write_text("x")
    (root / "holiday" / "2026").mkdir(parents=True)
    (root / "holiday" / "2026" / "beach.jpg").write_bytes(b"x")
    (tmp_path / "outside.wav").write_bytes(b"x")
    (Path(kept.audio.locator).parent / "link.wav").symlink_to(tmp_path / "outside.wav")
    (root / "conv_link").symlink_to(tmp_path, target_is_directory=True)
    report = await local_keeper.verify()
    assert (report.status, report.checked.foreign) == ("clean", 2)


async def test_a_row_may_spell_the_folder_in_another_way(
    local_keeper: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await keep_conversation(local_keeper.storage, local_keeper.database)
    monkeypatch.chdir(tmp_path)
    relative = sa.func.replace(StoredObjectRow.locator, str(local_keeper.upload_dir), "./uploads")
    await change(local_keeper.database, sa.update(StoredObjectRow).values(locator=relative))
    assert (await local_keeper.verify()).status == "clean"
    local_keeper.remove(kept.audio.locator)
    assert [kind for kind, _ in told(await local_keeper.verify())] == ["missing"]


async def test_rows_outside_the_upload_folder_cannot_be_looked_at(local_keeper: Keeper) -> None:
    await keep_conversation(local_keeper.storage, local_keeper.database)
    await keep_conversation(local_keeper.storage, local_keeper.database)
    moved = sa.update(StoredObjectRow).where(StoredObjectRow.id == 1).values(locator="/elsewhere/conv_a/a.wav")
    await change(local_keeper.database, moved)
    report = await local_keeper.verify(grace=Grace())
    [unchecked] = report.unchecked
    assert (report.status, report.exit_code, unchecked.store, unchecked.objects) == ("incomplete", 2, "local", 1)
    assert "UPLOAD_DIR" in unchecked.reason
    assert report.counts == {}


async def test_stale_spool_files_are_found_and_those_that_are_needed_are_not(local_keeper: Keeper) -> None:
    spool = local_keeper.upload_dir / ".spool"
    (spool / "kept").mkdir()
    for name in ("left.part", "tus.part", "kept/job_done", "kept/job_waiting", "notes.txt"):
        (spool / name).write_bytes(b"12345")
    async with local_keeper.database.transaction() as session:
        session.add(_job("job_waiting"))
        session.add(_upload(spool="tus.part"))
    assert (await local_keeper.verify(grace=Grace(orphan_s=-60))).status == "clean", "young"
    report = await local_keeper.verify()
    assert told(report) == [("stale_spool_file", "kept/job_done"), ("stale_spool_file", "left.part")]
    assert report.checked.spool_files == 4


async def test_forgotten_multipart_uploads_are_found(s3_keeper: Keeper) -> None:
    where = {"Bucket": s3_keeper.bucket}
    begun = [
        s3_keeper.s3.create_multipart_upload(**where, Key=f"audio/conv_a/2026/01/15/{name}.wav")["UploadId"]
        for name in ("forgotten", "resumable")
    ]
    s3_keeper.s3.create_multipart_upload(**where, Key="somebody/else.bin")
    async with s3_keeper.database.transaction() as session:
        session.add(_upload(s3_upload_id=begun[1]))
    assert (await s3_keeper.verify(grace=Grace(orphan_s=-60))).status == "clean", "young"
    report = await s3_keeper.verify()
    assert [kind for kind, _ in told(report)] == ["unfinished_upload"]
    assert report.findings[0].locator.endswith("forgotten.wav")


async def test_a_store_that_does_not_answer_is_told_and_the_others_are_looked_at(
    s3_keeper: Keeper, faulty: FaultProxy, s3_config, tmp_path: Path
) -> None:
    await keep_conversation(s3_keeper.storage, s3_keeper.database)
    config = s3_config(faulty.server, upload_dir=str(tmp_path / "uploads"), s3_bucket_name=s3_keeper.bucket)
    faulty.mode = "refuse"
    async with StorageService(config) as storage:
        kept = await keep_conversation(storage, s3_keeper.database)
        Path(kept.audio.locator).unlink()
        began = time.monotonic()
        report = await reconciliation(storage, s3_keeper.database).verify(Scope(grace=AT_ONCE))
    assert time.monotonic() - began < 10, "it is not asked for each object"
    assert (report.status, report.exit_code) == ("incomplete", 2)
    assert [(item.store, item.objects) for item in report.unchecked] == [("s3", 3)]
    assert told(report) == [("missing", kept.audio.locator)]


async def test_rows_in_a_store_that_is_not_configured_cannot_be_looked_at(local_keeper: Keeper) -> None:
    await keep_conversation(local_keeper.storage, local_keeper.database)
    async with local_keeper.database.transaction() as session:
        row = await session.get(StoredObjectRow, 1)
        assert row is not None
        row.store, row.locator = "s3", "s3://gone/audio/conv_a/2026/01/15/a.wav"
    report = await local_keeper.verify(grace=Grace())
    assert [(item.store, item.objects) for item in report.unchecked] == [("s3", 1)]


async def test_parts_together_find_what_one_look_finds(keeper: Keeper) -> None:
    kept = [await keep_conversation(keeper.storage, keeper.database) for _ in range(3)]
    keeper.remove(kept[0].audio.locator)
    keeper.overwrite(kept[1].audio.locator, b"short")
    stray = await keeper.storage.save_audio_file(b"x", "conv_nobody", "stray.wav")
    whole = told(await keeper.verify())
    keeper.in_batches_of(2)
    found, cursor, parts = [], None, 0
    while parts == 0 or cursor is not None:
        part = await keeper.verify(deep=True, bounds=Bounds(cursor=cursor, max_objects=1))
        found += told(part)
        cursor, parts = part.cursor, parts + 1
    assert sorted(found) == whole
    assert ("orphan", stray.locator) in whole and parts > 10


@pytest.mark.parametrize("cursor", ["nonsense", "rows:x", "objects/tape:", "", "rows"])
async def test_a_cursor_that_is_none_is_refused(local_keeper: Keeper, cursor: str) -> None:
    if cursor in ("", "rows"):
        assert (await local_keeper.verify(bounds=Bounds(cursor=cursor))).status == "clean"
        return
    with pytest.raises(InvalidInput, match="no cursor"):
        await local_keeper.verify(bounds=Bounds(cursor=cursor))


async def test_a_look_that_is_bounded_in_time_stops(local_keeper: Keeper) -> None:
    for _ in range(3):
        await keep_conversation(local_keeper.storage, local_keeper.database)
    report = await local_keeper.verify(bounds=Bounds(max_seconds=0))
    assert report.cursor is not None and report.checked.objects == 0


async def test_a_deep_look_keeps_to_its_pace(local_keeper: Keeper) -> None:
    await keep_conversation(local_keeper.storage, local_keeper.database, sound=bytes(3 * 1024 * 1024))
    began = time.monotonic()
    report = await local_keeper.verify(deep=True, max_bytes_per_s=4 * 1024 * 1024)
    assert time.monotonic() - began >= 0.45, "two chunks of a MiB are waited for"
    assert report.status == "clean"


async def test_an_object_that_moves_meanwhile_is_not_missed(
    local_keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await keep_conversation(local_keeper.storage, local_keeper.database)
    store = local_keeper.stores[0]
    find = store.find_sizes

    async def move_and_find(locators: list[str]) -> dict[str, object]:
        """As a drain that ends between the look at the row and the look at the store."""
        local_keeper.remove(kept.audio.locator)
        moved = sa.update(StoredObjectRow).where(StoredObjectRow.locator == kept.audio.locator)
        await change(local_keeper.database, moved.values(locator="s3://bucket/audio/there", store="s3"))
        monkeypatch.setattr(store, "find_sizes", find)
        return dict(await find(locators))

    monkeypatch.setattr(store, "find_sizes", move_and_find)
    report = await local_keeper.verify()
    assert report.counts == {}


async def test_findings_beyond_the_first_thousand_are_counted(local_keeper: Keeper) -> None:
    folder = local_keeper.upload_dir / "conv_nobody" / "2026" / "01" / "15"
    folder.mkdir(parents=True)
    for number in range(1001):
        (folder / f"{number}.wav").touch()
    report = await local_keeper.verify()
    assert (report.counts, len(report.findings)) == ({"orphan": 1001}, 1000)


def _job(recording: str) -> Job:
    return Job(
        id="job_1",
        conversation_id="conv_nobody",
        queue="asr",
        recording=recording,
        filename="a.wav",
        size_bytes=1,
        sha256="0" * 64,
        options={},
        created_at=datetime.now(UTC),
    )


def _upload(**place: str) -> UploadRow:
    now = datetime.now(UTC)
    return UploadRow(id="upload_1", filename="a.wav", details={}, created_at=now, expires_at=now, **place)
