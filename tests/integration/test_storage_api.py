"""Storage as it shows over HTTP: refusals when the disk is full, the state of S3, and what a reader gets."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from backend.config import Settings
from backend.errors import StorageMisconfigured, StorageUnavailable
from backend.services.storage import StorageConfig
from backend.wiring.services import Services
from tests.conftest import api
from tests.support.fixtures_storage import StorageConfigMaker
from tests.support.media import tone, write
from tests.support.servers import FaultProxy

pytestmark = pytest.mark.anyio

TEBIBYTE = 1024**4


def recording(folder: Path) -> bytes:
    return write(folder / "meeting.wav", tone(2.0)).read_bytes()


async def process(client: httpx.AsyncClient, folder: Path) -> httpx.Response:
    return await client.post("/audio/process", files={"file": ("meeting.wav", recording(folder))})


class TestFullDisk:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        full = settings.storage.model_copy(update={"disk_hard_limit_bytes": 1024 * TEBIBYTE})
        return settings.model_copy(update={"storage": full})

    async def test_an_upload_is_refused_before_its_body_is_read(self, client: httpx.AsyncClient) -> None:
        async def body() -> AsyncIterator[bytes]:
            raise AssertionError("the body is read although the disk is full")
            yield b""

        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = await client.post("/audio/process", content=body(), headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (507, "urn:aperta:problem:storage-full")
        assert int(answer.headers["retry-after"]) > 0
        assert "DISK_HARD_LIMIT_BYTES" in answer.json()["detail"]

    async def test_the_rest_goes_on_and_uploads_do_when_there_is_room(
        self, client: httpx.AsyncClient, services: Services, tmp_path: Path
    ) -> None:
        services.storage.parts.space._hard_bytes = 0
        done = (await process(client, tmp_path)).json()
        services.storage.parts.space._hard_bytes = 1024 * TEBIBYTE
        assert (await process(client, tmp_path)).status_code == 507
        assert (await client.get(f"/conversations/{done['conversation_id']}/audio")).status_code == 200
        assert (await client.delete(f"/conversations/{done['conversation_id']}")).status_code == 204
        services.storage.parts.space._hard_bytes = 0
        assert (await process(client, tmp_path)).status_code == 200

    async def test_it_is_seen_everywhere(self, client: httpx.AsyncClient) -> None:
        info = (await client.get("/audio/storage-info")).json()
        assert (info["disk"], info["disk_hard_limit_bytes"]) == ("full", 1024 * TEBIBYTE)
        health = (await client.get("/health")).json()
        assert (health["status"], health["disk"]) == ("degraded", "full")
        assert 'aperta_storage_disk{state="full"} 1.0' in (await client.get("/metrics")).text


async def test_an_upload_that_would_not_fit_is_refused_by_its_length(settings: Settings) -> None:
    huge = settings.model_copy(update={"max_upload_bytes": 2048 * TEBIBYTE})
    async with api(huge) as (client, _):
        headers = {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(1024 * TEBIBYTE)}
        answer = await client.post("/audio/process", content=b"--x", headers=headers)
    assert answer.status_code == 507 and "for an upload of" in answer.json()["detail"]


async def test_a_low_disk_is_told_and_takes_uploads(settings: Settings, tmp_path: Path) -> None:
    low = settings.storage.model_copy(update={"disk_soft_limit_bytes": 1024 * TEBIBYTE})
    async with api(settings.model_copy(update={"storage": low})) as (client, _):
        assert (await process(client, tmp_path)).status_code == 200
        assert (await client.get("/audio/storage-info")).json()["disk"] == "low"


class TestBreaker:
    @pytest.fixture
    def settings(self, settings: Settings, faulty: FaultProxy, s3_config: StorageConfigMaker) -> Settings:
        faulty.answer = lambda head: None  # a connection for each request, so that any may be answered
        config: StorageConfig = s3_config(faulty.server, s3_read_timeout_s=1)
        return settings.model_copy(update={"storage": config})

    async def test_it_is_seen_everywhere(self, client: httpx.AsyncClient, services: Services) -> None:
        before = (await client.get("/audio/storage-info")).json()
        assert (before["breaker"], before["cause"], before["retry_at"]) == ("closed", None, None)
        assert 'aperta_storage_breaker{state="closed",store="s3"} 1.0' in (await client.get("/metrics")).text

        services.storage.parts.breaker.open(StorageMisconfigured("S3 refused: ExpiredToken."))
        during = (await client.get("/health")).json()
        assert (during["status"], during["breaker"], during["storage"]) == ("degraded", "open", "local")
        assert during["storage_reason"] == "S3 refused: ExpiredToken."
        figures = (await client.get("/metrics")).text
        assert 'aperta_storage_breaker{state="open",store="s3"} 1.0' in figures
        assert 'aperta_storage_breaker{state="closed",store="s3"} 0.0' in figures
        services.storage.parts.status._asked_at += 60  # the next question would close it again
        info = (await client.get("/audio/storage-info")).json()
        assert (info["breaker"], info["cause"], info["reason"]) == (
            "open",
            "configuration",
            "S3 refused: ExpiredToken.",
        )
        assert 0 < info["retry_in_s"] <= 36 and info["retry_at"].endswith("Z")

    async def test_a_store_that_is_away_is_unavailable_and_never_missing(
        self, client: httpx.AsyncClient, faulty: FaultProxy, tmp_path: Path
    ) -> None:
        done = (await process(client, tmp_path)).json()
        assert done["audio_file_path"].startswith("s3://")
        url = f"/conversations/{done['conversation_id']}/audio"
        assert (await client.get(url)).status_code == 307
        faulty.mode = "refuse"
        away = await client.get(url)
        assert (away.status_code, away.json()["type"]) == (503, "urn:aperta:problem:storage-unavailable")
        assert int(away.headers["retry-after"]) > 0 and "could not be asked" in away.json()["detail"]
        faulty.mode = "pass"
        assert (await client.get(url)).status_code == 307

    async def test_what_is_in_the_bucket_is_described_here_and_fetched_there(
        self, client: httpx.AsyncClient, tmp_path: Path
    ) -> None:
        done = (await process(client, tmp_path)).json()
        url = f"/conversations/{done['conversation_id']}/audio"
        head = await client.head(url)
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(recording(tmp_path))))
        assert 'filename="meeting.wav"' in head.headers["content-disposition"]
        same = await client.get(url, headers={"If-None-Match": head.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")
        got = await client.get(url, headers={"Range": "bytes=0-9"})
        assert got.status_code == 307
        async with httpx.AsyncClient() as outside:
            part = await outside.get(got.headers["location"], headers={"Range": "bytes=0-9"})
        assert (part.status_code, part.content) == (206, recording(tmp_path)[:10])

    async def test_a_reader_is_told_when_the_store_is_asked_next(
        self, client: httpx.AsyncClient, services: Services, faulty: FaultProxy, tmp_path: Path
    ) -> None:
        done = (await process(client, tmp_path)).json()
        faulty.mode = "refuse"
        services.storage.parts.breaker._retry_after_s = 5.0
        services.storage.parts.breaker.open(StorageUnavailable("S3 is away."))
        away = await client.get(f"/conversations/{done['conversation_id']}/audio")
        assert away.status_code == 503 and 1 <= int(away.headers["retry-after"]) <= 6

    async def test_the_four_errors_stay_four(
        self, client: httpx.AsyncClient, faulty: FaultProxy, raw_s3: object, tmp_path: Path
    ) -> None:
        done = (await process(client, tmp_path)).json()
        url = f"/conversations/{done['conversation_id']}/audio"
        bucket, _, key = done["audio_file_path"].removeprefix("s3://").partition("/")
        faulty.answer = lambda head: (403, "AccessDenied")
        denied = await client.get(url)
        faulty.answer = lambda head: None
        raw_s3.put_object(Bucket=bucket, Key=key, Body=b"another")  # type: ignore[attr-defined]
        corrupt = await client.get(url)
        raw_s3.delete_object(Bucket=bucket, Key=key)  # type: ignore[attr-defined]
        missing = await client.get(url)
        faulty.mode = "refuse"
        away = await client.get(url)
        assert [(answer.status_code, answer.json()["type"]) for answer in (denied, corrupt, missing, away)] == [
            (503, "urn:aperta:problem:storage-misconfigured"),
            (500, "urn:aperta:problem:object-corrupt"),
            (404, "urn:aperta:problem:object-missing"),
            (503, "urn:aperta:problem:storage-unavailable"),
        ]


async def test_a_recording_comes_with_its_hash(client: httpx.AsyncClient, tmp_path: Path) -> None:
    done = (await process(client, tmp_path)).json()
    digest = b64encode(hashlib.sha256(recording(tmp_path)).digest()).decode()
    url = f"/conversations/{done['conversation_id']}/audio"
    for answer in (
        await client.get(url),
        await client.head(url),
        await client.get(url, headers={"Range": "bytes=0-9"}),
    ):
        assert answer.headers["repr-digest"] == f"sha-256=:{digest}:"


async def test_a_file_with_a_flipped_bit_is_refused_not_served(
    client: httpx.AsyncClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = (await process(client, tmp_path)).json()
    url = f"/conversations/{done['conversation_id']}/audio"
    assert (await client.get(url)).status_code == 200
    path = Path(done["audio_file_path"])
    data = bytearray(path.read_bytes())
    data[1000] ^= 4
    path.write_bytes(data)
    answer = await client.get(url)
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:aperta:problem:object-corrupt")
    assert "aperta storage verify" in answer.json()["detail"]
    assert "is not what was saved" in caplog.text
