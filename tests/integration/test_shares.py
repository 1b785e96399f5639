"""What one key may hold at once, so that it leaves room for another; and what a lone user may."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from backend.config import Settings
from tests.conftest import api
from tests.support.media import tone, write

pytestmark = pytest.mark.anyio

ADA, BOB = ("ada", "correct-horse-battery"), ("bob", "staple:of+the~office")
TUS = {"Tus-Resumable": "1.0.0"}
PIECE = TUS | {"Content-Type": "application/offset+octet-stream"}
MIB = 1024**2


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Ada is an administrator, Bob is not; no worker takes their jobs."""
    keys = SecretStr(f"{':'.join(ADA)} {':'.join(BOB)}")
    return settings.model_copy(
        update={"api_keys": keys, "api_admins": "ada", "workers": "none", "max_upload_bytes": 1024 * MIB}
    )


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "meeting.wav", tone(1.0))


async def begin(
    client: httpx.AsyncClient, auth: tuple[str, str] | None, size_bytes: int | None = 1000
) -> httpx.Response:
    size = {"Upload-Defer-Length": "1"} if size_bytes is None else {"Upload-Length": str(size_bytes)}
    return await client.post("/uploads", headers=TUS | size, auth=auth)


def assert_refused(answer: httpx.Response, status: int, setting: str) -> None:
    assert answer.status_code == status, answer.text
    assert setting in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) > 0


def with_space(settings: Settings, spare_bytes: int) -> Settings:
    """The disk has this much space for uploads, by what must stay free of it."""
    hard_bytes = shutil.disk_usage(Path(settings.storage.upload_dir).parent).free - spare_bytes
    storage = settings.storage.model_copy(update={"disk_hard_limit_bytes": hard_bytes})
    return settings.model_copy(update={"storage": storage})


def send(recording: Path) -> dict[str, tuple[str, bytes]]:
    return {"file": (recording.name, recording.read_bytes())}


@asynccontextmanager
async def unfinished(client: httpx.AsyncClient, auth: tuple[str, str], count: int) -> AsyncIterator[None]:
    """Uploads whose bodies do not end while the context is open."""
    end, waiting = asyncio.Event(), asyncio.Semaphore(0)

    async def chunks() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        waiting.release()
        await end.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            headers = {"Content-Type": "multipart/form-data; boundary=x"}
            group.create_task(client.post("/audio/process", content=chunks(), headers=headers, auth=auth))
        for _ in range(count):
            await waiting.acquire()
        yield
        end.set()


async def test_one_key_receives_half_of_the_places_for_uploads(settings: Settings, recording: Path) -> None:
    changed = settings.model_copy(update={"max_concurrent_uploads": 4})
    async with api(changed) as (client, _), unfinished(client, BOB, 2):
        late = await client.post("/audio/process?async=true", files=send(recording), auth=BOB)
        assert_refused(late, 429, "MAX_CONCURRENT_UPLOADS")
        assert "KEY_SHARE" in late.json()["detail"]
        other = await client.post("/audio/process?async=true", files=send(recording), auth=ADA)
        assert other.status_code == 202, other.text


@pytest.mark.parametrize("per_key", [None, 4])
async def test_one_key_fills_half_of_the_queue(settings: Settings, recording: Path, per_key: int | None) -> None:
    changed = settings.model_copy(update={"max_queued_jobs": 4, "max_queued_jobs_per_key": per_key})
    async with api(changed) as (client, _):
        answers = [
            await client.post("/audio/process?async=true", files=send(recording), auth=auth)
            for auth in (BOB, BOB, BOB, ADA)
        ]
    assert [answer.status_code for answer in answers] == [202, 202, 429, 202]
    assert_refused(answers[2], 429, "MAX_QUEUED_JOBS_PER_KEY")


async def test_one_key_opens_half_of_the_uploads(settings: Settings) -> None:
    async with api(settings.model_copy(update={"max_open_uploads": 4})) as (client, _):
        answers = [await begin(client, auth) for auth in (BOB, BOB, BOB, ADA)]
    assert [answer.status_code for answer in answers] == [201, 201, 429, 201]
    assert_refused(answers[2], 429, "MAX_OPEN_UPLOADS")


async def test_uploads_begun_at_the_same_time_are_all_counted(settings: Settings) -> None:
    async with api(settings.model_copy(update={"max_open_uploads": 4})) as (client, _):
        answers = await asyncio.gather(*[begin(client, BOB) for _ in range(8)])
    assert sorted(answer.status_code for answer in answers) == [201, 201] + [429] * 6


async def test_an_upload_that_is_gone_gives_its_place_back(settings: Settings) -> None:
    async with api(settings.model_copy(update={"max_open_uploads": 2})) as (client, _):
        url = (await begin(client, BOB)).headers["location"]
        assert (await begin(client, BOB)).status_code == 429
        assert (await client.delete(url, headers=TUS, auth=BOB)).status_code == 204
        assert (await begin(client, BOB)).status_code == 201


@pytest.mark.parametrize("keys", [None, SecretStr(":".join(BOB))])
async def test_a_lone_user_may_have_all(settings: Settings, recording: Path, keys: SecretStr | None) -> None:
    alone = {"api_keys": keys, "api_admins": None, "max_open_uploads": 2, "max_queued_jobs": 2}
    auth = BOB if keys else None
    async with api(settings.model_copy(update=alone)) as (client, _):
        begun = [(await begin(client, auth)).status_code for _ in range(3)]
        jobs = [
            (await client.post("/audio/process?async=true", files=send(recording), auth=auth)).status_code
            for _ in range(3)
        ]
    assert begun == [201, 201, 429] and jobs == [202, 202, 429]


async def test_promised_bytes_count_against_the_space_of_the_disk(settings: Settings) -> None:
    alone = settings.model_copy(update={"api_keys": None, "api_admins": None})
    async with api(with_space(alone, 1000 * MIB)) as (client, _):
        answers = [await begin(client, None, 400 * MIB) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 201, 507]
    assert "DISK_HARD_LIMIT_BYTES" in answers[2].json()["detail"]


async def test_a_promised_upload_also_stands_before_a_recording_in_one_request(settings: Settings) -> None:
    alone = settings.model_copy(update={"api_keys": None, "api_admins": None})
    async with api(with_space(alone, 1000 * MIB)) as (client, _):
        assert (await begin(client, None, 990 * MIB)).status_code == 201
        answer = await client.post("/audio/process?async=true", files={"file": ("a.wav", bytes(20 * MIB))})
    assert answer.status_code == 507, answer.text


async def test_one_key_is_promised_half_of_the_disk(settings: Settings) -> None:
    async with api(with_space(settings, 1000 * MIB)) as (client, _):
        answers = [await begin(client, auth, 400 * MIB) for auth in (BOB, BOB, ADA)]
    assert [answer.status_code for answer in answers] == [201, 429, 201]
    assert_refused(answers[1], 429, "KEY_SHARE")


async def test_an_upload_of_unknown_size_ends_at_its_keys_share(settings: Settings) -> None:
    async with api(with_space(settings, 100 * MIB)) as (client, _):
        url = (await begin(client, BOB, None)).headers["location"]
        offset = 0
        for _ in range(8):
            headers = PIECE | {"Upload-Offset": str(offset)}
            answer = await client.patch(url, headers=headers, content=bytes(10 * MIB), auth=BOB)
            if answer.status_code != 204:
                break
            offset = int(answer.headers["upload-offset"])
        assert_refused(answer, 429, "KEY_SHARE")
        assert offset < 70 * MIB
        assert (await begin(client, ADA, 20 * MIB)).status_code == 201


async def test_one_key_follows_jobs_in_half_of_the_event_streams(settings: Settings, recording: Path) -> None:
    async with api(settings.model_copy(update={"max_event_streams": 2})) as (client, services):
        job = (await client.post("/audio/process?async=true", files=send(recording), auth=BOB)).json()["id"]
        with services.shares.stream("bob"):
            assert_refused(await client.get(f"/jobs/{job}/events", auth=BOB), 429, "MAX_EVENT_STREAMS")
            assert (await client.delete(f"/jobs/{job}", auth=BOB)).status_code == 200
            assert (await client.get(f"/jobs/{job}/events", auth=ADA)).status_code == 200
        for _ in range(3):
            assert (await client.get(f"/jobs/{job}/events", auth=BOB)).status_code == 200


async def test_administrators_list_every_upload_and_others_their_own(settings: Settings) -> None:
    async with api(settings) as (client, _):
        mine = (await begin(client, ADA)).headers["location"].rpartition("/")[2]
        url = (await begin(client, BOB, 5)).headers["location"]
        await client.patch(url, headers=PIECE | {"Upload-Offset": "0"}, content=b"123", auth=BOB)
        seen = (await client.get("/uploads", auth=ADA)).json()
        bobs = (await client.get("/uploads", auth=BOB)).json()
    assert seen["total"] == 2 and {upload["upload_id"] for upload in seen["uploads"]} > {mine}
    (upload,) = bobs["uploads"]
    assert bobs["total"] == 1 and upload["upload_id"] == url.rpartition("/")[2]
    assert (upload["owner"], upload["size_bytes"], upload["offset_bytes"]) == ("bob", 5, 3)


@pytest.mark.parametrize("headers", [{}, TUS, TUS | {"X-HTTP-Method-Override": "DELETE"}])
async def test_administrators_remove_any_upload(settings: Settings, headers: dict[str, str]) -> None:
    method = "POST" if "X-HTTP-Method-Override" in headers else "DELETE"
    async with api(settings) as (client, _):
        url = (await begin(client, BOB)).headers["location"]
        assert (await client.request(method, url, headers=headers, auth=ADA)).status_code == 204
        assert (await client.head(url, headers=TUS, auth=BOB)).status_code == 404


async def test_others_remove_only_their_own(settings: Settings) -> None:
    async with api(settings) as (client, _):
        url = (await begin(client, ADA)).headers["location"]
        assert (await client.delete(url, auth=BOB)).status_code == 404
        assert (await client.head(url, headers=TUS, auth=ADA)).status_code == 200


async def test_administrators_do_not_write_to_the_uploads_of_others(settings: Settings) -> None:
    async with api(settings) as (client, _):
        url = (await begin(client, BOB)).headers["location"]
        override = PIECE | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
        assert (await client.post(url, headers=override, content=b"1", auth=ADA)).status_code == 404
        assert (
            await client.patch(url, headers=PIECE | {"Upload-Offset": "0"}, content=b"1", auth=ADA)
        ).status_code == 404
