"""Storage whose every byte is encoded: no operation reads or writes around the wrapper."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from backend.config import Settings
from backend.database.models import StoredObjectRow
from backend.errors import ObjectCorrupt, StorageUnavailable
from backend.services.lifecycle.drain import DrainReport, DrainResult
from backend.services.storage import Expected, StorageConfig, StorageService, Stream
from backend.services.storage.placement.parts import open_parts
from backend.wiring.services import Services
from tests.conftest import api
from tests.contracts.store_contract import conversation, joined, read
from tests.support.codecs import Flipped, Salted, salted, unsalted, wrap_in
from tests.support.depot import Depot, files_in, keys_in, open_depot
from tests.support.fixtures_reconciliation import Keeper, reconciliation
from tests.support.media import tone, write
from tests.support.recordings import keep_conversation, open_database, rows_of
from tests.support.servers import S3Server

pytestmark = pytest.mark.anyio

MakeConfig = Callable[..., StorageConfig]
SOUND = b"sound" * 1000


def wrapped(config: StorageConfig, codec: Any = None) -> StorageService:
    return StorageService(parts=open_parts(config, wrap=wrap_in(codec or Salted())))


def tell(storage: bytes) -> None:
    """Fail if these bytes show anything of what was saved."""
    for plain in (b"sound", b"RIFF", b"Speaker", b"conversation_id", b"Good morning"):
        assert plain not in storage


@pytest.fixture
def recording(tmp_path: Path) -> bytes:
    return write(tmp_path / "meeting.wav", tone(2.0)).read_bytes()


class TestOverHttp:
    """A recording is processed, served and deleted; on a folder alone."""

    @pytest.fixture(params=[Salted, Flipped])
    async def opened(
        self, settings: Settings, request: pytest.FixtureRequest
    ) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
        async with api(settings, parts=open_parts(settings.storage, wrap=wrap_in(request.param()))) as pair:
            yield pair

    @pytest.fixture
    async def url(self, client: httpx.AsyncClient, recording: bytes) -> str:
        done = await client.post("/audio/process", files={"file": ("meeting.wav", recording)})
        assert done.status_code == 200, done.text
        return f"/conversations/{done.json()['conversation_id']}"

    async def test_no_stored_file_shows_what_was_said(self, url: str, settings: Settings) -> None:
        stored = [path for path in Path(settings.storage.upload_dir).rglob("conv_*/**/*") if path.is_file()]
        assert len(stored) == 3
        for path in stored:
            tell(path.read_bytes())

    async def test_rows_keep_the_plain_size_and_hash(
        self, client: httpx.AsyncClient, url: str, services: Services, recording: bytes
    ) -> None:
        [audio] = [item for item in (await client.get(url)).json()["objects"] if item["kind"] == "audio"]
        assert audio["size_bytes"] == len(recording)
        expected = Expected(len(recording), audio["sha256"])
        async with services.storage.as_file(audio["locator"], expected) as file:
            assert file.path.read_bytes() == recording

    async def test_the_recording_comes_whole(self, client: httpx.AsyncClient, url: str, recording: bytes) -> None:
        whole = await client.get(f"{url}/audio")
        assert (whole.status_code, whole.content) == (200, recording)
        head = await client.head(f"{url}/audio")
        for name in ("content-length", "content-type", "content-disposition", "etag", "repr-digest", "last-modified"):
            assert head.headers[name] == whole.headers[name]

    @pytest.mark.parametrize(("asked", "start", "end"), [("0-0", 0, 1), ("100-199", 100, 200), ("-10", -10, None)])
    async def test_ranges_are_slices(
        self, client: httpx.AsyncClient, url: str, recording: bytes, asked: str, start: int, end: int | None
    ) -> None:
        part = await client.get(f"{url}/audio", headers={"Range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, recording[start:end])
        both = await client.get(f"{url}/audio", headers={"Range": "bytes=0-9, 20-29"})
        assert both.headers["content-type"].startswith("multipart/byteranges")
        assert recording[:10] in both.content and recording[20:30] in both.content
        assert int(both.headers["content-length"]) == len(both.content)
        past = await client.get(f"{url}/audio", headers={"Range": f"bytes={len(recording)}-"})
        assert past.status_code == 416

    async def test_what_the_client_has_is_not_sent_again(self, client: httpx.AsyncClient, url: str) -> None:
        etag = (await client.head(f"{url}/audio")).headers["etag"]
        assert (await client.get(f"{url}/audio", headers={"If-None-Match": etag})).status_code == 304

    async def test_damaged_bytes_are_not_served(self, client: httpx.AsyncClient, url: str, settings: Settings) -> None:
        [audio] = Path(settings.storage.upload_dir).rglob("conv_*/**/*.wav")
        data = bytearray(audio.read_bytes())
        data[1000] ^= 4
        audio.write_bytes(data)
        for headers in ({}, {"Range": "bytes=0-9"}):
            answer = await client.get(f"{url}/audio", headers=headers)
            assert answer.json()["type"] == "urn:aperta:problem:object-corrupt"

    async def test_a_recording_that_vanished_is_missing(
        self, client: httpx.AsyncClient, url: str, settings: Settings
    ) -> None:
        [audio] = Path(settings.storage.upload_dir).rglob("conv_*/**/*.wav")
        audio.unlink()
        assert (await client.get(f"{url}/audio")).status_code == 404

    async def test_a_delete_leaves_nothing(
        self, client: httpx.AsyncClient, url: str, stored_files: Callable[[], list[str]]
    ) -> None:
        assert (await client.delete(url)).status_code == 204
        assert stored_files() == []


class TestDrain:
    @pytest.fixture
    async def depot(
        self, swift: S3Server, s3_config: MakeConfig, upload_dir: Path, tmp_path: Path
    ) -> AsyncIterator[Depot]:
        config = s3_config(swift, upload_dir=str(upload_dir))
        local = wrapped(config.model_copy(update={"storage_backend": "local"}))
        url = f"sqlite+aiosqlite:///{tmp_path}/rows.db"
        async with open_depot(config, url, wrapped(config), local) as opened:
            yield opened

    async def test_objects_move_encoded(self, depot: Depot, upload_dir: Path, raw_s3: Any, bucket: str) -> None:
        conversation_id = await depot.record(SOUND)
        assert (await depot.drain.drain_all()).moved == 3
        assert files_in(upload_dir) == [] and list((upload_dir / ".spool").glob("*.part")) == []
        keys = keys_in(raw_s3, bucket, conversation_id)
        assert len(keys) == 3
        for key in keys:
            tell(raw_s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        audio = await depot.audio(conversation_id)
        assert (audio.store, audio.size_bytes, await depot.read(audio.id)) == ("s3", len(SOUND), SOUND)

    async def test_a_copy_that_an_earlier_move_left_is_taken_over(self, depot: Depot, raw_s3: Any, bucket: str) -> None:
        conversation_id = await depot.record(SOUND)
        audio = await depot.audio(conversation_id)
        left = f"audio/{depot.storage.key(audio.locator)}"
        raw_s3.put_object(Bucket=bucket, Key=left, Body=salted(SOUND))
        outcome = await depot.drain.drain_object(audio.id)
        assert outcome.locator == f"s3://{bucket}/{left}"
        assert await depot.read(audio.id) == SOUND

    async def test_a_damaged_object_stays_where_it_is(self, depot: Depot) -> None:
        audio = await depot.audio(await depot.record(SOUND))
        Path(audio.locator).write_bytes(salted(SOUND[::-1]))
        assert (await depot.drain.drain_object(audio.id)).result == DrainResult.PARKED

    async def test_what_a_killed_drain_left_is_swept_up(self, depot: Depot) -> None:
        audio = await depot.audio(await depot.record(SOUND))
        await depot.drain.drain_all()
        for name, data in (("meeting.wav", SOUND), ("other.wav", SOUND[::-1])):
            path = Path(audio.locator).with_name(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(salted(data))
        depot.drain._swept = False
        assert await depot.drain.drain_all() == DrainReport()
        assert [path.name for path in Path(audio.locator).parent.iterdir()] == ["other.wav"]

    async def test_a_local_copy_stands_in_for_a_silent_bucket(self, depot: Depot) -> None:
        audio = await depot.audio(await depot.record(SOUND))
        held = Path(audio.locator).read_bytes()
        await depot.drain.drain_all()
        Path(audio.locator).parent.mkdir(parents=True)
        Path(audio.locator).write_bytes(held)
        audio = (await depot.rows(audio.conversation_id))[0]
        depot.storage.parts.breaker.open(StorageUnavailable("S3 is away.", answered=False))
        expected = Expected(audio.size_bytes, audio.sha256, audio.version)
        given = await depot.storage.access(audio.locator, filename="a.wav", content_type="a/b", expected=expected)
        assert isinstance(given, Stream) and await joined(given.open(0, None)) == SOUND


class TestReconciliation:
    @pytest.fixture
    async def keeper(
        self, swift: S3Server, s3_config: MakeConfig, tmp_path: Path, raw_s3: Any, bucket: str
    ) -> AsyncIterator[Keeper]:
        upload_dir = tmp_path / "uploads"
        name = f"{bucket}-{tmp_path.name[:20].replace('_', '-').lower()}".rstrip("-")
        raw_s3.create_bucket(Bucket=name)
        config = s3_config(swift, upload_dir=str(upload_dir), s3_bucket_name=name)
        database = await open_database(tmp_path / "rows.db")
        async with wrapped(config) as storage:
            yield Keeper(storage, database, upload_dir, raw_s3, name)
        await database.close()

    async def test_a_deep_look_finds_all_well_and_every_damage(self, keeper: Keeper) -> None:
        kept = await keep_conversation(keeper.storage, keeper.database)
        for data in keeper.everything().values():
            tell(data)
        assert (await keeper.verify(deep=True)).status == "clean"
        keeper.overwrite(kept.audio.locator, salted(b"x" * kept.audio.size_bytes))
        assert kept.transcript is not None
        keeper.overwrite(kept.transcript.locator, salted(b"short"))
        report = await keeper.verify(deep=True)
        assert report.counts == {"corrupt": 1, "wrong_size": 1}

    async def test_a_row_points_to_the_copy_that_is_left(self, keeper: Keeper) -> None:
        kept = await keep_conversation(keeper.storage, keeper.database)
        data = keeper.everything()[kept.audio.locator]
        copy = keeper.stores[1].locator("audio", kept.audio.key)
        keeper.overwrite(copy, data)
        keeper.remove(kept.audio.locator)
        await keeper.repair()
        async with keeper.database.transaction() as session:
            query = sa.select(StoredObjectRow.locator).where(StoredObjectRow.kind == "audio")
            assert (await session.execute(query)).scalar_one() == copy
        assert (await keeper.verify(deep=True)).status == "clean"

    async def test_what_belongs_to_nobody_is_quarantined_and_can_be_read(self, keeper: Keeper) -> None:
        stray = await keeper.storage.save_audio_file(SOUND, "conv_nobody", "stray.wav")
        await keeper.repair()
        [moved] = [item async for item in keeper.stores[0].iterate_quarantine()]
        assert moved.size_bytes == len(SOUND) and await keeper.read(moved.locator) == SOUND
        assert stray.locator not in keeper.everything()

    async def test_rows_are_rebuilt_from_encoded_manifests(self, keeper: Keeper, tmp_path: Path) -> None:
        await keep_conversation(keeper.storage, keeper.database)
        before = await rows_of(keeper.database)
        empty = await open_database(tmp_path / "empty.db")
        report = await reconciliation(keeper.storage, empty).rebuild(apply=True)
        assert (report.rebuilt, report.exit_code) == (1, 0)
        assert (await rows_of(empty)).keys() == before.keys()
        assert len((await rows_of(empty))["stored_objects"]) == 3
        await empty.close()


async def test_what_a_client_sent_straight_to_the_bucket_is_encoded_when_it_is_taken(
    settings: Settings, swift: S3Server, s3_config: MakeConfig, recording: bytes, raw_s3: Any, bucket: str
) -> None:
    settings = settings.model_copy(update={"storage": s3_config(swift)})
    async with api(settings, parts=open_parts(settings.storage, wrap=wrap_in(Salted()))) as (client, _):
        asked = {"filename": "meeting.wav", "size_bytes": len(recording)}
        begun = (await client.post("/uploads/presign", json=asked)).json()
        async with httpx.AsyncClient() as outside:
            [part] = begun["parts"]
            assert (await outside.put(part["url"], content=recording)).status_code == 200
        completed = await client.post(f"/uploads/{begun['upload_id']}/complete")
        assert completed.status_code == 200, completed.text
        done = await client.post("/audio/process", files={"upload_id": (None, begun["upload_id"])})
        assert done.status_code == 200, done.text
        locator = done.json()["audio_file_path"]
        held = raw_s3.get_object(Bucket=bucket, Key=locator.removeprefix(f"s3://{bucket}/"))["Body"].read()
        assert held != recording and unsalted(held) == recording
        answer = await client.get(f"/conversations/{done.json()['conversation_id']}/audio")
        assert (answer.status_code, answer.content) == (200, recording)


async def test_a_large_object_that_is_damaged_never_comes_whole(local_config: StorageConfig) -> None:
    async with wrapped(local_config) as storage:
        stored = await storage.save_audio_file(bytes(65 * 1024 * 1024), conversation(), "long.wav")
        expected = Expected(stored.size_bytes, stored.sha256)
        given = await storage.access(stored.locator, filename="a.wav", content_type="a/b", expected=expected)
        assert isinstance(given, Stream)
        damaged = bytearray(Path(stored.locator).read_bytes())
        damaged[1000] ^= 4
        Path(stored.locator).write_bytes(damaged)
        received = 0
        with pytest.raises(ObjectCorrupt):
            async for chunk in given.open(0, None):
                received += len(chunk)
        assert received < stored.size_bytes
        await storage.access(
            stored.locator, filename="a.wav", content_type="a/b", expected=replace(expected, sha256="0" * 64)
        )
        assert await read(storage, stored.locator, 0, 10) == bytes(10)
