"""Recordings that are stored on arrival, for workers that do not see the server's disk."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
import sqlalchemy as sa

from backend.concurrency.lanes import ThreadLane
from backend.config import Settings
from backend.database import conversations, jobs, objects
from backend.database.migrate import migrate
from backend.database.models import Conversation, Job, StoredObjectRow
from backend.database.objects import row_of
from backend.database.session import Database
from backend.errors import ObjectMissing, ProcessingFailed, StorageUnavailable
from backend.main import create_app
from backend.services.jobs import recording as recordings
from backend.services.jobs.recording import OutOfReach, Recordings
from backend.services.jobs.runner import ALL_QUEUES
from backend.services.processing.service import ProcessOptions
from backend.services.speech.pipeline import SpeechPipeline
from backend.services.speech.steps import DirectSteps
from backend.services.storage import StorageConfig, StorageService, Stores
from backend.services.storage.placement.parts import open_parts
from backend.services.storage.stores.local.store import LocalStore
from backend.services.storage.stores.memory import MemoryStore
from backend.services.uploads.sources import ReceivedRecording
from backend.wiring.services import open_services
from tests.conftest import scripted_speech, send
from tests.support.media import tone, write

pytestmark = pytest.mark.anyio

Files = Callable[[], list[str]]
T = TypeVar("T")


@asynccontextmanager
async def sharing(
    settings: Settings, speech: SpeechPipeline | None = None, *, works: bool = True
) -> AsyncIterator[httpx.AsyncClient]:
    """An API that stores what it accepts; the same process may work as well."""
    settings = settings.model_copy(update={"workers": "none"})
    app = create_app(settings)
    listen = ALL_QUEUES if works else ("storage",)
    async with open_services(settings, speech=speech or scripted_speech(), listen=listen) as services:
        app.state.services = services
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "meeting.wav", tone(2.0))


async def test_an_accepted_recording_is_an_object_before_anybody_works_on_it(
    settings: Settings, recording: Path, stored_files: Files
) -> None:
    async with sharing(settings, works=False) as client:
        job = (await send(client, recording, "?async=true")).json()
        detail = (await client.get(f"/conversations/{job['conversation_id']}")).json()
        assert detail["status"] == "processing" and [item["kind"] for item in detail["objects"]] == ["audio"]
        assert detail["recording_url"] == detail["objects"][0]["locator"]
        audio = await client.get(f"/conversations/{job['conversation_id']}/audio")
        assert audio.content == recording.read_bytes()
        [file] = stored_files()
        assert file.endswith("/meeting.wav") and ".spool" not in file


async def test_it_is_processed_from_there_and_stays_there(
    settings: Settings, recording: Path, stored_files: Files
) -> None:
    async with sharing(settings) as client:
        answer = (await send(client, recording)).json()
        assert answer["transcript"]["speaker_count"] == 2
        detail = (await client.get(f"/conversations/{answer['conversation_id']}")).json()
        assert sorted(item["kind"] for item in detail["objects"]) == ["audio", "metadata", "transcript"]
        assert len(stored_files()) == 3


async def test_one_of_several_requests_with_one_key_stores_it(
    settings: Settings, recording: Path, stored_files: Files
) -> None:
    async with sharing(settings) as client:
        answers = await asyncio.gather(*(send(client, recording, **{"Idempotency-Key": "x"}) for _ in range(4)))
        assert len({answer.json()["conversation_id"] for answer in answers}) == 1
        assert len(stored_files()) == 3


async def test_a_cancelled_job_takes_its_recording_with_it(
    settings: Settings, recording: Path, stored_files: Files
) -> None:
    async with sharing(settings, works=False) as client:
        job = (await send(client, recording, "?async=true")).json()
        assert (await client.delete(f"/jobs/{job['id']}")).status_code == 200
        assert stored_files() == []


async def test_a_refused_recording_leaves_nothing(settings: Settings, recording: Path, stored_files: Files) -> None:
    async with sharing(settings, scripted_speech(max_s=1)) as client:
        assert (await send(client, recording)).status_code == 413
        assert stored_files() == [] and (await client.get("/conversations")).json()["total"] == 0


async def test_a_recording_that_an_engine_broke_on_is_kept_and_can_be_tried_again(
    settings: Settings, recording: Path, stored_files: Files
) -> None:
    async with sharing(settings, scripted_speech(heard=RuntimeError("out of memory"))) as client:
        failed = await send(client, recording)
        assert failed.status_code == 500 and "out of memory" in failed.json()["detail"]
        assert [Path(file).suffix for file in stored_files()] == [".wav", ".json"]
        [job] = (await client.get("/jobs?status=failed")).json()["jobs"]
    async with sharing(settings) as client:
        assert (await client.post(f"/jobs/{job['id']}/retry")).status_code == 202
        end = asyncio.get_running_loop().time() + 20
        while (await client.get(f"/jobs/{job['id']}")).json()["status"] != "completed":
            assert asyncio.get_running_loop().time() < end
            await asyncio.sleep(0.05)
        assert len(stored_files()) == 3


class MovingSteps(DirectSteps):
    """Steps between whose last and the commit the recording moves, as a drain moves it."""

    def __init__(self, database: Database, to: Path) -> None:
        super().__init__()
        self._database = database
        self._to = to

    async def run(self, stage: str, work: Callable[[], Awaitable[T]], kind: type[T]) -> T:
        done = await super().run(stage, work, kind)
        if stage == "store":
            async with self._database.transaction() as session:
                row = (
                    await session.execute(sa.select(StoredObjectRow).where(StoredObjectRow.kind == "audio"))
                ).scalar_one()
                source = Path(row.locator)
                source.rename(self._to)
                assert await objects.switch(session, row, store="local", locator=str(self._to), version=None)
        return done


async def test_a_recording_that_moves_just_before_the_commit_is_not_lost(
    settings: Settings, recording: Path, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"workers": "none"})
    moved = tmp_path / "uploads" / "moved.wav"
    async with open_services(settings, speech=scripted_speech()) as services:

        async def chunks() -> AsyncIterator[bytes]:
            yield recording.read_bytes()

        async with services.storage.spool(chunks()) as spooled:
            accepted = await services.intake.accept(ReceivedRecording(spooled, "meeting.wav"), ProcessOptions())
            async with services.database.transaction() as session:
                job = await jobs.get_job(session, accepted.id)
                claimed = await jobs.claim(session, job, "w", crashes=0, at=datetime.now(UTC))
            assert claimed is not None
            await services.processing.process(claimed, spooled, MovingSteps(services.database, moved))
        async with services.database.transaction() as session:
            row = await conversations.get_conversation(session, job.conversation_id, detailed=True)
    assert row.recording_url == str(moved) and moved.read_bytes() == recording.read_bytes()
    assert [item.locator for item in row.objects if item.kind == "audio"] == [str(moved)]


SOUND = b"sound"


class Town:
    """A bucket, a server's disk and another machine's, and one job whose recording the server stored."""

    def __init__(self, tmp_path: Path, database: Database) -> None:
        self.bucket = MemoryStore("s3")
        self.database = database
        here, there = (str(tmp_path / name) for name in ("server", "worker"))
        self.server = self._service(here)
        self.worker = self._service(there)

    @property
    def recordings(self) -> Recordings:
        parts = self.worker.parts
        return Recordings(self.worker, parts.accepted, parts.mover, self.database)

    def _service(self, folder: str) -> StorageService:
        return StorageService(parts=open_parts(StorageConfig(upload_dir=folder), Stores(self.bucket, disk(folder))))

    async def accept(self) -> Job:
        stored = await self.server.save_audio_file(SOUND, "conv_1", "a.wav")
        now = datetime.now(UTC)
        conversation = Conversation(id="conv_1", status="processing", filename="a.wav", created_at=now)
        job = Job(
            id="job_1",
            conversation_id="conv_1",
            queue="asr",
            filename="a.wav",
            size_bytes=len(SOUND),
            sha256=hashlib.sha256(SOUND).hexdigest(),
            recording=stored.locator,
            options={},
            created_at=now,
        )
        async with self.database.transaction() as session:
            session.add_all((conversation, job))
            await session.flush()
            session.add(row_of(stored, "conv_1", now))
        return job

    async def read(self, job: Job) -> bytes:
        async with self.recordings.open(job, lambda: None) as spooled:
            return spooled.path.read_bytes()

    async def change_row(self, **values: object) -> None:
        async with self.database.transaction() as session:
            await session.execute(sa.update(StoredObjectRow).values(**values))


def disk(folder: str) -> LocalStore:
    return LocalStore(folder, ThreadLane("disk", 2))


@pytest.fixture
async def town(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    monkeypatch.setattr(recordings, "ASK_AGAIN_AFTER_S", 0.05)
    await migrate(settings.database_url)
    database = Database(settings.database_url)
    found = Town(tmp_path, database)
    yield found
    await found.server.close()
    await found.worker.close()
    await database.close()


async def test_a_worker_fetches_a_recording_from_the_bucket(town: Town) -> None:
    assert await town.read(await town.accept()) == SOUND


async def test_a_worker_waits_for_a_bucket_that_is_away(town: Town) -> None:
    job = await town.accept()
    town.bucket.failure = StorageUnavailable("away")
    reading = asyncio.create_task(town.read(job))
    await asyncio.sleep(0.3)
    assert not reading.done()
    town.bucket.failure = None
    assert await reading == SOUND


async def test_whoever_waits_can_be_stopped(town: Town) -> None:
    job = await town.accept()
    town.bucket.failure = StorageUnavailable("away")

    def check() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        async with town.recordings.open(job, check):
            pass


async def test_a_worker_waits_until_what_was_saved_in_an_outage_has_moved(town: Town) -> None:
    town.bucket.failure = StorageUnavailable("away")
    job = await town.accept()
    town.bucket.failure = None
    reading = asyncio.create_task(town.read(job))
    await asyncio.sleep(0.3)
    assert not reading.done()
    moved = town.bucket.locator("audio", "conv_1/2026/01/15/a.wav")
    town.bucket.objects[moved] = SOUND
    await town.change_row(store="s3", locator=moved)
    assert await reading == SOUND


async def test_a_recording_that_will_not_move_is_out_of_reach(town: Town) -> None:
    town.bucket.failure = StorageUnavailable("away")
    job = await town.accept()
    await town.change_row(parked="refused")
    with pytest.raises(OutOfReach, match="shared UPLOAD_DIR, or S3"):
        await town.read(job)


async def test_a_recording_that_is_gone_is_out_of_reach(town: Town) -> None:
    job = await town.accept()
    town.bucket.objects.clear()
    with pytest.raises(OutOfReach) as raised:
        await town.read(job)
    assert isinstance(raised.value.__cause__, ObjectMissing)


async def test_a_recording_that_was_changed_is_not_processed(town: Town) -> None:
    job = await town.accept()
    [locator] = town.bucket.objects
    town.bucket.objects[locator] = b"noise"
    with pytest.raises(ProcessingFailed, match="damaged"):
        await town.read(job)
