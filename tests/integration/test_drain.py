"""Objects that were saved locally follow to S3, even if something breaks on the way. On a real S3 server."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from backend.concurrency.rate import RateLimit
from backend.database import deletions
from backend.errors import ObjectMissing, StorageUnavailable
from backend.services.lifecycle.drain import Backlog, DrainReport, DrainResult
from backend.services.storage import StorageConfig
from tests.contracts.store_contract import conversation, read
from tests.support.depot import AT, Depot, files_in, keys_in, open_depot, until
from tests.support.servers import FaultProxy, S3Server
from tests.support.victim import DRAIN_POINTS, Victim, victim_of

pytestmark = pytest.mark.anyio

MakeConfig = Callable[..., StorageConfig]


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/rows.db"


@pytest.fixture
async def depot(faulty: FaultProxy, s3_config: MakeConfig, upload_dir: Path, database_url: str) -> AsyncIterator[Depot]:
    config = s3_config(faulty.server, upload_dir=str(upload_dir), s3_retry_after_s=0.2, s3_read_timeout_s=2)
    async with open_depot(config, database_url) as opened:
        yield opened


@pytest.fixture
def victim(faulty: FaultProxy, bucket: str, tmp_path: Path) -> Victim:
    return victim_of(faulty.server, bucket, tmp_path)


async def drains_all(depot: Depot) -> bool:
    return (await depot.drain.drain_all()).stopped is None


async def test_what_was_saved_locally_moves_to_the_same_keys_in_s3(
    depot: Depot, upload_dir: Path, raw_s3: Any, bucket: str
) -> None:
    ids = [await depot.record(b"sound %d" % number) for number in range(3)]
    report = await depot.drain.drain_all()
    assert report == DrainReport(moved=9, bytes=sum(row.size_bytes for row in await depot.rows()))
    assert files_in(upload_dir) == []
    for number, conversation_id in enumerate(ids):
        folder = f"{conversation_id}/2026/01/15"
        assert keys_in(raw_s3, bucket, conversation_id) == [
            f"audio/{folder}/meeting.wav",
            f"metadata/{folder}/recording_metadata.json",
            f"transcripts/{folder}/{conversation_id}_transcript.txt",
        ]
        audio = await depot.audio(conversation_id)
        assert (audio.store, audio.locator) == ("s3", f"s3://{bucket}/audio/{folder}/meeting.wav")
        assert audio.version and audio.parked is None
        assert await read(depot.storage, audio.locator) == b"sound %d" % number
        row, stored = await depot.conversation(conversation_id), await depot.rows(conversation_id)
        assert [row.recording_url, row.transcript_url] == [item.locator for item in stored[:2]]


async def test_how_far_s3_is_behind_can_be_seen(depot: Depot) -> None:
    await depot.record(b"x" * 1000)
    rows = await depot.rows()
    before = await depot.drain.backlog()
    assert (before.objects, before.bytes, before.parked) == (3, sum(row.size_bytes for row in rows), 0)
    assert before.oldest_s > 3600
    assert b"aperta_drain_pending_objects 3.0" in await depot.metrics.render()
    await depot.drain.drain_all()
    assert await depot.drain.backlog() == Backlog()
    shown = await depot.metrics.render()
    assert b"aperta_drain_pending_objects 0.0" in shown and b"aperta_drained_objects_total 3.0" in shown


async def test_where_local_is_the_right_place_nothing_moves(local_config: StorageConfig, database_url: str) -> None:
    async with open_depot(local_config, database_url) as depot:
        conversation_id = await depot.record()
        assert await depot.drain.backlog() == Backlog() and await depot.drain.pending() == ()
        assert await depot.drain.drain_all() == DrainReport()
        audio = await depot.audio(conversation_id)
        assert (await depot.drain.drain_object(audio.id)).result == DrainResult.SKIPPED
        assert await depot.read(audio.id) == b"sound"


async def test_pending_goes_page_by_page(depot: Depot) -> None:
    for _ in range(2):
        await depot.record()
    first = await depot.drain.pending(limit=4)
    rest = await depot.drain.pending(limit=4, after=first[-1].id)
    assert [row.id for row in (*first, *rest)] == [row.id for row in await depot.rows()]


@pytest.mark.parametrize("damage", [b"sOund", b"soun"])
async def test_a_file_that_is_not_what_was_saved_is_parked_and_never_sent(
    depot: Depot, raw_s3: Any, bucket: str, damage: bytes
) -> None:
    conversation_id = await depot.record(b"sound")
    audio = await depot.audio(conversation_id)
    Path(audio.locator).write_bytes(damage)
    report = await depot.drain.drain_all()
    assert (report.moved, report.parked, report.stopped) == (2, 1, None)
    assert keys_in(raw_s3, bucket, f"audio/{conversation_id}") == []
    parked = await depot.audio(conversation_id)
    assert (parked.store, parked.locator) == ("local", audio.locator)
    assert parked.parked and "is not what was saved" in parked.parked
    assert (await depot.drain.backlog()).parked == 1 and await depot.drain.pending() == []

    Path(audio.locator).write_bytes(b"sound")
    assert await depot.drain.retry_parked() == 1
    assert (await depot.drain.drain_all()).moved == 1
    assert (await depot.audio(conversation_id)).parked is None and await depot.read(audio.id) == b"sound"


async def test_a_file_that_changes_while_it_is_sent_is_not_switched_to(
    depot: Depot, raw_s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation_id = await depot.record(b"sound")
    audio = await depot.audio(conversation_id)
    real = depot.storage.parts.mover.copy

    async def change_first(*arguments: Any, **more: Any) -> Any:
        Path(audio.locator).write_bytes(b"SOUND")
        return await real(*arguments, **more)

    monkeypatch.setattr(depot.storage.parts.mover, "copy", change_first)
    outcome = await depot.drain.drain_object(audio.id)
    assert outcome.result == DrainResult.PARKED and outcome.reason and "changed" in outcome.reason
    assert keys_in(raw_s3, bucket, conversation_id) == []
    assert (await depot.audio(conversation_id)).store == "local"


async def test_a_file_that_is_not_on_this_machine_stays_pending(depot: Depot) -> None:
    conversation_id = await depot.record()
    audio = await depot.audio(conversation_id)
    Path(audio.locator).rename(f"{audio.locator}.elsewhere")
    report = await depot.drain.drain_all()
    assert (report.moved, report.failed, report.parked) == (2, 1, 0)
    assert [row.id for row in await depot.drain.pending()] == [audio.id]
    assert (await depot.drain.drain_all()).skipped == 1, "not again at once"


async def test_an_s3_that_is_down_stops_the_pass_and_loses_nothing(
    depot: Depot, faulty: FaultProxy, upload_dir: Path
) -> None:
    for _ in range(3):
        await depot.record()
    held = files_in(upload_dir)
    faulty.mode = "refuse"
    report = await depot.drain.drain_all(concurrency=2)
    assert report.moved == 0 and report.stopped and "S3" in report.stopped
    assert files_in(upload_dir) == held and {row.store for row in await depot.rows()} == {"local"}
    asked = faulty.connections
    depot.storage.parts.breaker.open(StorageUnavailable("S3 is down."))
    assert (await depot.drain.drain_all()).stopped == "S3 is down."
    assert faulty.connections == asked, "an open breaker is not tried"

    faulty.mode = "pass"
    await until(lambda: drains_all(depot))
    assert files_in(upload_dir) == [] and {row.store for row in await depot.rows()} == {"s3"}


async def test_an_outage_in_the_middle_ends_in_one_object_each(
    depot: Depot, faulty: FaultProxy, raw_s3: Any, bucket: str
) -> None:
    ids = [await depot.record(b"x" * 50_000) for _ in range(4)]

    def break_down(report: DrainReport) -> None:
        if report.moved == 4:
            faulty.mode = "503"

    first = await depot.drain.drain_all(concurrency=2, progress=break_down)
    assert 4 <= first.moved < 12 and first.stopped
    faulty.mode = "pass"
    await until(lambda: drains_all(depot))
    assert {row.store for row in await depot.rows()} == {"s3"}
    assert [len(keys_in(raw_s3, bucket, conversation_id)) for conversation_id in ids] == [3] * 4


async def test_a_copy_whose_reply_was_lost_is_taken_over(
    depot: Depot, faulty: FaultProxy, raw_s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversation_id = await depot.record(b"sound")
    audio = await depot.audio(conversation_id)
    writer = depot.storage.parts.stores.primary._writer  # type: ignore[attr-defined]
    real = writer._send_file

    def lose_the_reply(*arguments: Any) -> None:
        faulty.mode = "lostreply"
        real(*arguments)

    monkeypatch.setattr(writer, "_send_file", lose_the_reply)
    with pytest.raises(StorageUnavailable):
        await depot.drain.drain_object(audio.id)
    assert (await depot.audio(conversation_id)).store == "local"
    assert len(keys_in(raw_s3, bucket, conversation_id)) == 1
    monkeypatch.undo()
    faulty.mode = "pass"
    assert (await depot.drain.drain_object(audio.id)).result == DrainResult.MOVED
    assert len(keys_in(raw_s3, bucket, conversation_id)) == 1
    assert await depot.read(audio.id) == b"sound"


async def test_a_key_that_is_taken_by_other_bytes_is_left_alone(depot: Depot, raw_s3: Any, bucket: str) -> None:
    conversation_id = await depot.record(b"sound")
    audio = await depot.audio(conversation_id)
    taken = f"audio/{conversation_id}/2026/01/15/meeting.wav"
    raw_s3.put_object(Bucket=bucket, Key=taken, Body=b"other")
    outcome = await depot.drain.drain_object(audio.id)
    assert outcome.locator == f"s3://{bucket}/audio/{conversation_id}/2026/01/15/meeting-{audio.sha256[:12]}.wav"
    assert await depot.read(audio.id) == b"sound"
    assert raw_s3.get_object(Bucket=bucket, Key=taken)["Body"].read() == b"other"


async def test_two_drains_at_once_move_each_object_once(
    depot: Depot, raw_s3: Any, bucket: str, upload_dir: Path, s3_config: MakeConfig, swift: S3Server, database_url: str
) -> None:
    ids = [await depot.record(b"%d" % number) for number in range(8)]
    config = s3_config(swift, upload_dir=str(upload_dir))
    async with open_depot(config, database_url) as other:
        reports = await asyncio.gather(depot.drain.drain_all(), other.drain.drain_all())
    assert sum(report.moved for report in reports) == 24
    assert not any(report.stopped or report.failed or report.parked for report in reports)
    for number, conversation_id in enumerate(ids):
        assert len(keys_in(raw_s3, bucket, conversation_id)) == 3
        assert await depot.read((await depot.audio(conversation_id)).id) == b"%d" % number
    assert files_in(upload_dir) == []


async def test_readers_never_see_a_gap(depot: Depot, faulty: FaultProxy) -> None:
    contents = {(await depot.audio(await depot.record(b"%d" % n * 1000))).id: b"%d" % n * 1000 for n in range(8)}
    reads = 0
    done = asyncio.Event()

    async def keep_reading() -> None:
        nonlocal reads
        while not done.is_set():
            for object_id, data in contents.items():
                assert await depot.read(object_id) == data
                reads += 1

    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(keep_reading()) for _ in range(2)]
        report = await depot.drain.drain_all(concurrency=4)
        done.set()
    assert readers and report.moved == 24 and reads > 8


async def test_many_objects_together_keep_to_a_rate(depot: Depot) -> None:
    for _ in range(4):
        await depot.record(b"x" * 400_000)
    begun = time.monotonic()
    assert (await depot.drain.drain_all(max_bytes_per_s=1_000_000)).moved == 12
    assert time.monotonic() - begun >= 1.2, "the last one begins when the three before it have had their time"


async def test_a_large_object_alone_keeps_to_a_rate(depot: Depot) -> None:
    audio = await depot.audio(await depot.record(b"x" * 2_000_000))
    depot.drain._pace = RateLimit(1_000_000)
    begun = time.monotonic()
    assert (await depot.drain.drain_object(audio.id)).result == DrainResult.MOVED
    assert time.monotonic() - begun > 1, "but for a first burst it is sent at this rate"


@pytest.mark.parametrize("point", DRAIN_POINTS)
async def test_a_drain_that_is_killed_is_finished_by_the_next_one(
    depot: Depot, raw_s3: Any, bucket: str, upload_dir: Path, victim: Victim, point: str
) -> None:
    ids = [await depot.record(b"%d" % number) for number in range(2)]
    assert await victim("drain", point, "2") == -signal.SIGKILL
    for number, conversation_id in enumerate(ids):
        assert await depot.read((await depot.audio(conversation_id)).id) == b"%d" % number
    report = await depot.drain.drain_all()
    assert not report.stopped and not report.parked and not report.failed
    assert files_in(upload_dir) == [] and {row.store for row in await depot.rows()} == {"s3"}
    for number, conversation_id in enumerate(ids):
        assert len(keys_in(raw_s3, bucket, conversation_id)) == 3
        assert await depot.read((await depot.audio(conversation_id)).id) == b"%d" % number


async def test_a_drain_that_is_killed_within_a_large_object_sends_it_again(
    depot: Depot, faulty: FaultProxy, raw_s3: Any, bucket: str, upload_dir: Path, victim: Victim
) -> None:
    data = b"0123456789abcdef" * 2_000_000
    conversation_id = await depot.record(data)
    faulty.mode = "slow"
    killed = await victim("drain", "never", "1", kill_after_s=4)
    assert killed == -signal.SIGKILL and keys_in(raw_s3, bucket, f"audio/{conversation_id}") == []
    audio = await depot.audio(conversation_id)
    assert audio.store == "local" and await depot.read(audio.id) == data
    faulty.mode = "pass"
    assert (await depot.drain.drain_all()).stopped is None
    assert (await depot.audio(conversation_id)).store == "s3" and await depot.read(audio.id) == data
    assert files_in(upload_dir) == []
    # The parts of the first attempt are what `aperta storage verify` reports.
    [parts] = [
        item for item in raw_s3.list_multipart_uploads(Bucket=bucket)["Uploads"] if conversation_id in item["Key"]
    ]
    raw_s3.abort_multipart_upload(Bucket=bucket, Key=parts["Key"], UploadId=parts["UploadId"])


@pytest.mark.parametrize(
    "moment", ["before the copy", "after the copy", "after the copy, with a tombstone only", "late"]
)
async def test_a_conversation_that_is_deleted_during_its_drain_stays_deleted(
    depot: Depot, raw_s3: Any, bucket: str, upload_dir: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    conversation_id = await depot.record(b"sound")
    audio = await depot.audio(conversation_id)
    real = depot.storage.parts.mover.copy

    async def delete_meanwhile(*arguments: Any, **more: Any) -> Any:
        if moment == "before the copy":
            assert (await depot.deletes.delete(conversation_id)).complete
        copied = await real(*arguments, **more)
        if moment == "after the copy, with a tombstone only":
            async with depot.database.transaction() as session:
                assert await deletions.bury(session, conversation_id, AT)
        elif moment != "before the copy":
            assert (await depot.deletes.delete(conversation_id)).complete
        if moment == "late":  # the delete had looked before S3 had it all
            raw_s3.put_object(Bucket=bucket, Key=copied.locator.split("/", 3)[3], Body=b"sound")
        return copied

    monkeypatch.setattr(depot.storage.parts.mover, "copy", delete_meanwhile)
    assert (await depot.drain.drain_object(audio.id)).result == DrainResult.SKIPPED
    assert keys_in(raw_s3, bucket, conversation_id) == []
    await depot.deletes.finish_pending()
    assert files_in(upload_dir) == [] and await depot.rows() == []


async def test_deletes_beside_a_drain_leave_nothing(depot: Depot, raw_s3: Any, bucket: str, upload_dir: Path) -> None:
    ids = [await depot.record() for _ in range(10)]
    async with asyncio.TaskGroup() as group:
        draining = group.create_task(depot.drain.drain_all(concurrency=3))
        for conversation_id in ids:
            await depot.deletes.delete(conversation_id)
            await asyncio.sleep(0.01)
    assert draining.result().stopped is None
    assert await depot.rows() == [] and files_in(upload_dir) == []
    assert [key for conversation_id in ids for key in keys_in(raw_s3, bucket, conversation_id)] == []


async def test_a_missing_object_is_still_missing(depot: Depot) -> None:
    stored = await depot.local.save_transcript("x", conversation(), at=AT)
    await depot.local.delete(stored.locator)
    with pytest.raises(ObjectMissing):
        async with depot.storage.parts.mover.verified_file(stored):
            pass
