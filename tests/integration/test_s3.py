"""S3Store against a real server through real faults: each keeps its meaning, none takes long.

moto answers only where the shape of an answer matters; it checks neither secrets nor bytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from backend.errors import ObjectExists, ObjectMissing, StorageMisconfigured, StorageUnavailable
from backend.services.storage import PresignedUrl, SpooledFile, StorageConfig, StoredObject
from backend.services.storage.keys import audio_key
from backend.services.storage.stores.s3.client import transfer_config
from backend.services.storage.stores.s3.connection import S3Connection
from backend.services.storage.stores.s3.store import S3Store
from backend.services.storage.values import NewObject
from tests.contracts.store_contract import AT, conversation, read, spooled
from tests.support.fixtures_storage import s3_settings
from tests.support.servers import FaultProxy, S3Server, free_port

pytestmark = pytest.mark.anyio

MakeConfig = Callable[..., StorageConfig]


@asynccontextmanager
async def opened(config: StorageConfig) -> AsyncIterator[S3Store]:
    store = S3Store(S3Connection(config))
    yield store
    await store.close()


async def put(store: S3Store, folder: Path, data: bytes = b"data", **metadata: object) -> StoredObject:
    key = audio_key(conversation(), "meeting.wav", AT)
    source = spooled(data, folder)
    return await store.put(NewObject(source, "audio", key, "audio/wav", metadata))


async def seconds(work: Awaitable[object]) -> float:
    begun = time.monotonic()
    await work
    return time.monotonic() - begun


async def test_layout_headers_and_metadata(
    swift: S3Server, bucket: str, raw_s3: Any, s3_config: MakeConfig, tmp_path: Path
) -> None:
    async with opened(s3_config(swift)) as store:
        stored = await put(store, tmp_path, duration=12.5, speaker_count=2, title="Größe\r\nx", upload_time=AT)
    assert stored.locator == f"s3://{bucket}/audio/{stored.key}"
    head = raw_s3.head_object(Bucket=bucket, Key=f"audio/{stored.key}")
    assert head["ContentType"] == "audio/wav"
    assert {name.lower(): value for name, value in head["Metadata"].items()} == {
        "duration": "12.5",
        "speaker-count": "2",
        "title": "Gr??e  x",
        "upload-time": "2026-01-15T23:30:00+00:00",
        "sha256": stored.sha256,
    }


async def test_check_leaves_nothing_behind(swift: S3Server, bucket: str, raw_s3: Any, s3_config: MakeConfig) -> None:
    async with opened(s3_config(swift)) as store:
        await store.check()
    assert "Contents" not in raw_s3.list_objects_v2(Bucket=bucket, Prefix=".aperta-canary/")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"aws_secret_access_key": "wrong"}, r"SignatureDoesNotMatch.*AWS_SECRET_ACCESS_KEY"),
        ({"aws_access_key_id": "nobody"}, r"SignatureDoesNotMatch.*AWS_ACCESS_KEY_ID"),
        ({"s3_bucket_name": "no-such-bucket"}, r"NoSuchBucket.*S3_BUCKET_NAME"),
        ({"s3_bucket_name": "Not_A_Bucket!"}, r"bucket"),
        ({"aws_secret_access_key": None}, r"AWS_SECRET_ACCESS_KEY is not set"),
        ({"aws_access_key_id": None, "aws_secret_access_key": None}, r"No S3 credentials found"),
        ({"s3_endpoint_url": "not a url"}, r"S3_ENDPOINT_URL"),
        ({"s3_server_side_encryption": "AES256"}, r"NotImplemented.*S3_SERVER_SIDE_ENCRYPTION=none"),
    ],
)
async def test_a_wrong_setting_is_named(
    swift: S3Server, s3_config: MakeConfig, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    async with opened(s3_config(swift, **changes)) as store:
        with pytest.raises(StorageMisconfigured, match=said):
            await store.check()
        with pytest.raises(StorageMisconfigured, match=said):
            await put(store, tmp_path)


async def test_a_missing_bucket_is_not_a_missing_object(swift: S3Server, s3_config: MakeConfig) -> None:
    async with opened(s3_config(swift)) as store:
        with pytest.raises(StorageMisconfigured, match="NoSuchBucket"):
            await store.stat("s3://no-such-bucket/audio/x.wav")
        with pytest.raises(StorageMisconfigured, match="NoSuchBucket"):
            await read(store, "s3://no-such-bucket/audio/x.wav")


async def test_credentials_of_boto3s_own_chain(
    swift: S3Server, s3_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = s3_config(swift, aws_access_key_id=None, aws_secret_access_key=None)
    async with opened(config) as store:
        with pytest.raises(StorageMisconfigured, match="No S3 credentials found"):
            await store.check()
        profiles = tmp_path / "credentials"
        profiles.write_text(
            f"[default]\naws_access_key_id = {swift.access_key}\naws_secret_access_key = {swift.secret_key}\n"
        )
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profiles))
        await store.check()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    async with opened(config) as store:
        with pytest.raises(StorageMisconfigured, match="nobody"):
            await store.check()


async def test_a_spool_file_that_is_gone(swift: S3Server, s3_config: MakeConfig, tmp_path: Path) -> None:
    gone = SpooledFile(tmp_path / "gone.part", 1, "0" * 64)
    async with opened(s3_config(swift)) as store:
        with pytest.raises(ObjectMissing, match=r"gone\.part"):
            key = audio_key(conversation(), "m.wav", AT)
            await store.put(NewObject(gone, "audio", key, "audio/wav"))


async def test_nobody_listens(s3_config: MakeConfig, tmp_path: Path) -> None:
    async with opened(s3_config(S3Server("127.0.0.1", free_port()))) as store:
        with pytest.raises(StorageUnavailable, match="Is the store up"):
            await store.check()
        with pytest.raises(StorageUnavailable):
            await put(store, tmp_path)


@pytest.mark.parametrize("mode", ["refuse", "503", "reset", "lostreply", "blackhole"])
async def test_a_fault_makes_the_store_unavailable_and_passes(
    faulty: FaultProxy, s3_config: MakeConfig, tmp_path: Path, mode: Any
) -> None:
    config = s3_config(faulty.server, s3_read_timeout_s=1)
    async with opened(config) as store:
        await store.check()
        faulty.mode = mode
        with pytest.raises(StorageUnavailable):
            await put(store, tmp_path, b"x" * 1_000_000)
        faulty.mode = "pass"
        stored = await put(store, tmp_path, b"y" * 1_000_000)
        assert await read(store, stored.locator) == b"y" * 1_000_000


async def test_a_short_fault_is_retried_and_not_noticed(
    faulty: FaultProxy, s3_config: MakeConfig, tmp_path: Path
) -> None:
    async with opened(s3_config(faulty.server)) as store:
        faulty.mode = "503"

        async def recover() -> None:
            while faulty.connections == 0:
                await asyncio.sleep(0.01)
            faulty.mode = "pass"

        stored, _ = await asyncio.gather(put(store, tmp_path), recover())
        assert (await store.stat(stored.locator)).size_bytes == 4


async def test_a_check_of_a_silent_store_is_bounded(faulty: FaultProxy, s3_config: MakeConfig) -> None:
    faulty.mode = "blackhole"
    async with opened(s3_config(faulty.server, s3_connect_timeout_s=0.3, s3_read_timeout_s=0.4)) as store:
        with pytest.raises(StorageUnavailable):
            assert await seconds(store.check()) < 2


async def test_a_download_that_breaks_off_is_an_error_not_a_short_file(
    faulty: FaultProxy, s3_config: MakeConfig, tmp_path: Path
) -> None:
    async with opened(s3_config(faulty.server)) as store:
        stored = await put(store, tmp_path, b"x" * 8_000_000)
        with pytest.raises(StorageUnavailable):
            async for _ in store.open(stored.locator):
                faulty.mode = "refuse"


async def test_every_read_of_a_dead_store_is_unavailable_never_missing(
    faulty: FaultProxy, s3_config: MakeConfig, tmp_path: Path
) -> None:
    async with opened(s3_config(faulty.server)) as store:
        stored = await put(store, tmp_path)
        faulty.mode = "refuse"
        for work in (
            store.stat(stored.locator),
            read(store, stored.locator),
            store.delete(stored.locator),
            store.access(stored.locator, filename="m.wav", content_type="audio/wav"),
        ):
            with pytest.raises(StorageUnavailable):
                await work


async def test_a_presigned_url_expires(swift: S3Server, s3_config: MakeConfig, tmp_path: Path) -> None:
    async with opened(s3_config(swift, s3_presigned_url_expires_s=1)) as store:
        stored = await put(store, tmp_path)
        given = await store.access(stored.locator, filename="m.wav", content_type="audio/wav")
    assert isinstance(given, PresignedUrl) and given.expires_s == 1
    assert given.url not in repr(given)
    await asyncio.sleep(1.3)
    with pytest.raises(urllib.error.HTTPError) as refused:
        await asyncio.to_thread(urllib.request.urlopen, given.url)
    assert refused.value.code == 403
    refused.value.close()


def test_parts_are_few_enough_for_the_largest_object() -> None:
    five_tib = 5 * 2**40
    assert five_tib / transfer_config(five_tib).multipart_chunksize <= 10_000


@pytest.fixture(scope="module")
def moto() -> Iterator[S3Server]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Server(host, port, "key", "secret")
    server.stop()


@pytest.fixture
def moto_proxy(moto: S3Server, upload_dir: Path) -> Iterator[tuple[FaultProxy, StorageConfig]]:
    with FaultProxy(moto) as proxy:
        settings = s3_settings(proxy.server, "bucket", upload_dir) | {"s3_server_side_encryption": "AES256"}
        client = boto3.client("s3", endpoint_url=moto.url, aws_access_key_id="k", aws_secret_access_key="s")
        client.create_bucket(Bucket="bucket")
        client.close()
        yield proxy, StorageConfig(_env_file=None, **settings)


async def test_confirmed_encryption_needs_no_warning(
    moto_proxy: tuple[FaultProxy, StorageConfig], tmp_path: Path
) -> None:
    async with opened(moto_proxy[1]) as store:
        assert (await put(store, tmp_path)).warnings == ()


async def test_encryption_that_is_not_confirmed_is_a_warning(
    moto_proxy: tuple[FaultProxy, StorageConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proxy, config = moto_proxy
    proxy.rewrite = (b"x-amz-server-side-encryption:", b"x-old-server-side-encryption:")
    async with opened(config) as store:
        with caplog.at_level(logging.WARNING):
            stored = await put(store, tmp_path)
    assert "did not confirm the server-side encryption AES256" in stored.warnings[0]
    assert stored.locator in caplog.text


async def test_an_object_of_another_size_is_not_accepted(
    moto_proxy: tuple[FaultProxy, StorageConfig], tmp_path: Path
) -> None:
    proxy, config = moto_proxy
    proxy.rewrite = (b"Content-Length: 5000", b"Content-Length: 4999")
    async with opened(config) as store:
        with pytest.raises(StorageUnavailable, match="4999 of 5000 bytes"):
            await put(store, tmp_path, b"x" * 5000)


async def test_a_key_that_another_process_took_meanwhile(
    moto_proxy: tuple[FaultProxy, StorageConfig], tmp_path: Path
) -> None:
    proxy, config = moto_proxy
    ours = hashlib.sha256(b"ours").hexdigest().encode()
    proxy.rewrite = (ours, hashlib.sha256(b"theirs").hexdigest().encode())
    async with opened(config) as store:
        with pytest.raises(ObjectExists, match="Another process"):
            await put(store, tmp_path, b"ours")


async def test_an_unknown_object_is_missing(moto_proxy: tuple[FaultProxy, StorageConfig]) -> None:
    async with opened(moto_proxy[1]) as store:
        with pytest.raises(ObjectMissing):
            await store.stat("s3://bucket/audio/none.wav")
