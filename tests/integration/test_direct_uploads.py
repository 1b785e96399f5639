"""Uploads by signed links straight to the bucket of a real S3 server."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from backend.config import Settings
from backend.database import uploads
from backend.domain.lifecycle import Retention
from backend.services.storage.keys import INCOMING
from backend.services.uploads.direct import MAX_PARTS, MIB, MIN_PART_BYTES, part_sizes
from backend.services.uploads.expiry import UploadSweeper
from backend.wiring.services import Services
from tests.conftest import SAMPLE, api
from tests.support.fixtures_storage import StorageConfigMaker
from tests.support.servers import FaultProxy, S3Server

pytestmark = pytest.mark.anyio

Pair = tuple[httpx.AsyncClient, Services]


@pytest.fixture
async def on_s3(settings: Settings, swift: S3Server, s3_config: StorageConfigMaker) -> AsyncIterator[Pair]:
    settings.storage = s3_config(swift)
    settings.max_upload_bytes = 64 * MIB
    async with api(settings) as pair:
        yield pair


async def presign(client: httpx.AsyncClient, size: int, filename: str = "meeting.flac") -> dict[str, Any]:
    wanted = {"filename": filename, "size_bytes": size, "content_type": "audio/flac"}
    reply = await client.post("/uploads/presign", json=wanted)
    assert reply.status_code == 201, reply.text
    assert reply.headers["cache-control"] == "no-store"
    return reply.json()


async def put(link: str, data: bytes) -> httpx.Response:
    async with httpx.AsyncClient(timeout=60) as anybody:
        return await anybody.put(link, content=data)


@pytest.mark.parametrize(
    "size", [1, MIN_PART_BYTES, MIN_PART_BYTES + 1, 5 * 1024**3, MAX_PARTS * MIN_PART_BYTES + 1, 5 * 1024**4]
)
def test_parts_are_equal_but_the_last_and_within_what_s3_allows(size: int) -> None:
    sizes = part_sizes(size)
    assert sum(sizes) == size and len(sizes) <= MAX_PARTS
    assert len(set(sizes[:-1])) <= 1 and 0 < sizes[-1] <= max(sizes)
    assert all(5 * MIB <= part <= 5 * 1024**3 for part in sizes[:-1])


async def test_a_recording_goes_past_the_api(on_s3: Pair, bucket: str, raw_s3: Any) -> None:
    client, _ = on_s3
    recording = SAMPLE.read_bytes()
    begun = await presign(client, len(recording))
    [part] = begun["parts"]
    assert (await put(part["url"], recording)).status_code == 200
    done = await client.post(f"/uploads/{begun['upload_id']}/complete")
    assert done.status_code == 200 and done.json()["size_bytes"] == len(recording)
    assert (await client.post(f"/uploads/{begun['upload_id']}/complete")).json() == done.json()

    reply = await client.post("/audio/process", files={"upload_id": (None, begun["upload_id"])})

    assert reply.status_code == 200, reply.text
    stored = reply.json()["audio_file_path"]
    assert stored.startswith(f"s3://{bucket}/audio/") and stored.endswith("/meeting.flac")
    key = stored.removeprefix(f"s3://{bucket}/")
    assert raw_s3.get_object(Bucket=bucket, Key=key)["Body"].read() == recording
    assert not keys(raw_s3, bucket, begun)
    assert (await client.post("/audio/process", files={"upload_id": (None, begun["upload_id"])})).status_code == 404


async def test_several_parts_in_any_order(on_s3: Pair) -> None:
    client, services = on_s3
    data = os.urandom(MIN_PART_BYTES + 1000)
    begun = await presign(client, len(data))
    first, second = begun["parts"]
    assert (first["size_bytes"], second["size_bytes"]) == (MIN_PART_BYTES, 1000)
    await put(second["url"], data[MIN_PART_BYTES:])

    early = await client.post(f"/uploads/{begun['upload_id']}/complete")
    assert early.status_code == 409 and "1 of 2 parts have not arrived: 1." in early.json()["detail"]

    await put(first["url"], data[:MIN_PART_BYTES])
    await client.post(f"/uploads/{begun['upload_id']}/complete")
    async with services.uploads.claim(begun["upload_id"]) as (spooled, filename, content_type):
        assert spooled.sha256 == hashlib.sha256(data).hexdigest()
        assert (filename, content_type) == ("meeting.flac", "audio/flac")


async def test_a_link_takes_no_other_number_of_bytes(on_s3: Pair) -> None:
    client, _ = on_s3
    [part] = (await presign(client, 1000))["parts"]
    assert (await put(part["url"], bytes(1001))).status_code == 403
    assert (await put(part["url"], bytes(1000))).status_code == 200


async def test_an_incomplete_upload_is_not_processed(on_s3: Pair) -> None:
    client, _ = on_s3
    begun = await presign(client, 1000)
    reply = await client.post("/audio/process", files={"upload_id": (None, begun["upload_id"])})
    assert reply.status_code == 409 and "/complete" in reply.json()["detail"]


async def test_an_upload_that_is_refused_stays(on_s3: Pair, bucket: str, raw_s3: Any) -> None:
    client, _ = on_s3
    begun = await presign(client, 1000)
    await put(begun["parts"][0]["url"], bytes(1000))
    await client.post(f"/uploads/{begun['upload_id']}/complete")
    reply = await client.post("/audio/process", files={"upload_id": (None, begun["upload_id"])})
    assert reply.status_code == 415
    assert keys(raw_s3, bucket, begun)
    assert (await client.delete(f"/uploads/{begun['upload_id']}")).status_code == 204
    assert not keys(raw_s3, bucket, begun)


async def test_giving_up_frees_the_parts(on_s3: Pair, bucket: str, raw_s3: Any) -> None:
    client, _ = on_s3
    begun = await presign(client, 1000)
    await put(begun["parts"][0]["url"], bytes(1000))
    assert parts(raw_s3, bucket, begun)
    assert (await client.delete(f"/uploads/{begun['upload_id']}")).status_code == 204
    assert not parts(raw_s3, bucket, begun)
    assert (await put(begun["parts"][0]["url"], bytes(1000))).status_code == 404


async def test_what_expires_is_gone_from_the_bucket(on_s3: Pair, bucket: str, raw_s3: Any) -> None:
    client, services = on_s3
    begun = await presign(client, 1000)
    async with services.database.transaction() as session:
        row = await uploads.get_upload(session, begun["upload_id"])
        await uploads.set_upload(session, row.id, expires_at=row.created_at)
    assert (await client.post(f"/uploads/{begun['upload_id']}/complete")).status_code == 410
    assert (
        await UploadSweeper(
            services.uploads, services.storage.parts.resumable, services.database, retention=Retention(60)
        ).sweep()
        == 1
    )
    assert not parts(raw_s3, bucket, begun)


async def test_tus_does_not_take_it_over(on_s3: Pair) -> None:
    client, _ = on_s3
    begun = await presign(client, 1000)
    tus = {"Tus-Resumable": "1.0.0"}
    assert (await client.head(f"/uploads/{begun['upload_id']}", headers=tus)).status_code == 409
    piece = tus | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    assert (await client.patch(f"/uploads/{begun['upload_id']}", headers=piece, content=b"x")).status_code == 409


async def test_an_object_that_vanished_from_the_bucket(on_s3: Pair, bucket: str, raw_s3: Any) -> None:
    client, _ = on_s3
    begun = await presign(client, 1000)
    await put(begun["parts"][0]["url"], bytes(1000))
    await client.post(f"/uploads/{begun['upload_id']}/complete")
    raw_s3.delete_object(Bucket=bucket, Key=INCOMING + begun["upload_id"])
    reply = await client.post("/audio/process", files={"upload_id": (None, begun["upload_id"])})
    assert reply.status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"filename": "a.wav", "size_bytes": 64 * MIB + 1}, 413),
        ({"filename": "a.wav", "size_bytes": 0}, 422),
        ({"filename": "", "size_bytes": 1}, 422),
    ],
)
async def test_what_cannot_be_begun(on_s3: Pair, body: dict[str, object], status: int) -> None:
    assert (await on_s3[0].post("/uploads/presign", json=body)).status_code == status


async def test_a_store_that_is_away(settings: Settings, s3_config: StorageConfigMaker, faulty: FaultProxy) -> None:
    settings.storage = s3_config(faulty.server)
    faulty.mode = "refuse"
    async with api(settings) as (client, _):
        reply = await client.post("/uploads/presign", json={"filename": "a.wav", "size_bytes": 1})
    assert reply.status_code == 503 and "retry-after" in reply.headers


async def test_without_a_bucket_another_way_is_named(client: httpx.AsyncClient) -> None:
    reply = await client.post("/uploads/presign", json={"filename": "a.wav", "size_bytes": 1})
    assert reply.status_code == 409
    assert "/audio/process" in reply.json()["detail"] and "/uploads" in reply.json()["detail"]


def parts(raw_s3: Any, bucket: str, begun: dict[str, Any]) -> list[Any]:
    """What the bucket keeps of an unfinished upload."""
    found = []
    for item in raw_s3.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
        if item["Key"] == INCOMING + begun["upload_id"]:
            found += raw_s3.list_parts(Bucket=bucket, Key=item["Key"], UploadId=item["UploadId"]).get("Parts", ())
    return found


def keys(raw_s3: Any, bucket: str, begun: dict[str, Any]) -> list[str]:
    listed = raw_s3.list_objects_v2(Bucket=bucket, Prefix=INCOMING + begun["upload_id"])
    return [item["Key"] for item in listed.get("Contents", ())]
