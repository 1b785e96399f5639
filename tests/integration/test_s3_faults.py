"""The outage story on a real S3 server: what a fault does to saves, what is said of it, and the way back.

Timeouts are short, so that every fault shows within a moment. Every accepted save must be readable afterwards.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import botocore.auth
import pytest

from backend.errors import ObjectCorrupt, StorageMisconfigured, StorageUnavailable
from backend.services.storage import Expected, LocalFile, PresignedUrl, StorageConfig, StorageService, StoredObject
from backend.services.storage.placement.breaker import FAILURES_IN_A_ROW
from tests.contracts.store_contract import conversation, read
from tests.support.servers import FaultProxy, S3Server

pytestmark = pytest.mark.anyio

MakeConfig = Callable[..., StorageConfig]

QUICK = {"s3_connect_timeout_s": 0.5, "s3_read_timeout_s": 1.0}
MUCH = bytes(range(256)) * 2500  # 640 KB: more than what `reset` and `flip` let pass


@asynccontextmanager
async def running(config: StorageConfig) -> AsyncIterator[StorageService]:
    """A service whose S3 answers at the start."""
    async with StorageService(config) as storage:
        assert (await storage.get_info()).breaker == "closed"
        yield storage


@asynccontextmanager
async def running_behind(faulty: FaultProxy, config: StorageConfig) -> AsyncIterator[StorageService]:
    """The same, and every request goes over a connection of its own, so that the proxy may answer any of them."""
    faulty.answer = lambda head: None
    async with running(config) as storage:
        yield storage


async def save(storage: StorageService, data: bytes = MUCH) -> StoredObject:
    return await storage.save_audio_file(data, conversation(), "m.wav")


async def until(storage: StorageService, state: str, limit_s: float = 10) -> None:
    deadline = time.monotonic() + limit_s
    while (await storage.get_info(ask=False)).breaker != state:
        assert time.monotonic() < deadline, f"the breaker did not become {state}"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("mode", ["refuse", "503", "reset", "flip"])
async def test_a_passing_fault_opens_the_breaker_after_a_few_saves_and_a_canary_closes_it(
    faulty: FaultProxy, s3_config: MakeConfig, mode: Any
) -> None:
    async with running(s3_config(faulty.server, s3_retry_after_s=0.3, **(QUICK | {"s3_read_timeout_s": 3}))) as storage:
        faulty.mode = mode
        kept = [await save(storage) for _ in range(FAILURES_IN_A_ROW)]
        assert {(stored.store, len(stored.warnings), stored.parked) for stored in kept} == {("local", 1, None)}
        if mode != "flip":  # the canary is too small to be hit by it
            info = await storage.get_info(ask=False)
            assert (info.breaker, info.cause, info.storage_type) == ("open", "unavailable", "local")
            assert info.reason and info.retry_in_s is not None
        faulty.mode = "pass"
        await until(storage, "closed")
        after = await save(storage)
        assert (after.store, after.warnings) == ("s3", ())
        for stored in (*kept, after):
            assert await read(storage, stored.locator) == MUCH


@pytest.mark.parametrize("mode", ["blackhole", "lostreply"])
async def test_a_silent_store_is_waited_for_once_and_then_nobody_waits(
    faulty: FaultProxy, s3_config: MakeConfig, mode: Any
) -> None:
    async with running(s3_config(faulty.server, **QUICK)) as storage:
        healthy_s = await seconds_of_saves(storage, 20)
        faulty.mode = mode
        begun = time.monotonic()
        assert (await save(storage)).store == "local"
        waited_s = time.monotonic() - begun
        assert (await storage.get_info(ask=False)).breaker == "open"
        asked = faulty.connections
        open_s = await seconds_of_saves(storage, 20)
        assert faulty.connections == asked, "S3 is left alone"
        assert waited_s < 6
        assert max(open_s) < max(0.3, 2 * max(healthy_s)), "a local save costs no more than one to S3"


async def seconds_of_saves(storage: StorageService, count: int) -> list[float]:
    seconds = []
    for _ in range(count):
        begun = time.monotonic()
        await save(storage, b"x" * 1000)
        seconds.append(time.monotonic() - begun)
    return seconds


async def test_saves_that_queue_behind_a_silent_store_give_up_with_the_first(
    faulty: FaultProxy, s3_config: MakeConfig
) -> None:
    async with running(s3_config(faulty.server, s3_max_concurrency=2, **QUICK)) as storage:
        faulty.mode = "blackhole"
        begun = time.monotonic()
        stored = await asyncio.gather(*(save(storage, b"x") for _ in range(30)))
        assert {one.store for one in stored} == {"local"}
        assert time.monotonic() - begun < 8, "fifteen turns of two, each waiting out its timeouts, would take longer"


async def test_a_slow_store_gets_a_bounded_chance_and_is_not_taken_for_dead(
    faulty: FaultProxy, s3_config: MakeConfig
) -> None:
    async with running(s3_config(faulty.server, s3_save_timeout_s=0.5)) as storage:
        faulty.mode = "slow"
        begun = time.monotonic()
        stored = await save(storage, bytes(5_000_000))
        assert time.monotonic() - begun < 5, "at 256 KB/s it would take 19 s"
        assert stored.store == "local" and "took longer than" in stored.warnings[0]
        assert (await storage.get_info(ask=False)).breaker == "closed"


async def test_a_wrong_secret_is_a_matter_of_configuration(
    s3_server: S3Server, s3_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    async with StorageService(s3_config(s3_server, aws_secret_access_key="wrong")) as storage:
        await assert_misconfigured(storage, "SignatureDoesNotMatch", caplog)


@pytest.mark.parametrize(
    ("status", "code", "remedy"),
    [
        (400, "ExpiredToken", "provide new credentials"),
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (403, "AccessDenied", "s3:PutObject"),
        (403, "QuotaExceeded", "quota"),
    ],
)
async def test_what_the_store_says_while_it_runs_opens_the_breaker_at_once(
    faulty: FaultProxy,
    s3_config: MakeConfig,
    caplog: pytest.LogCaptureFixture,
    status: int,
    code: str,
    remedy: str,
) -> None:
    async with running_behind(faulty, s3_config(faulty.server, s3_retry_after_s=0.2)) as storage:
        faulty.answer = lambda head: (status, code) if head.startswith("PUT") else None
        stored = await save(storage)
        info = await storage.get_info(ask=False)
        assert (stored.store, info.breaker) == ("local", "open")
        assert info.cause == ("full" if code == "QuotaExceeded" else "configuration")
        for said in (stored.warnings[0], info.reason or "", caplog.text):
            assert code in said and remedy in said
        faulty.answer = lambda head: None
        await until(storage, "closed")


async def test_a_skewed_clock_is_named(
    s3_server: S3Server, s3_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(s3_config(s3_server, s3_retry_after_s=0.2)) as storage:
        now = botocore.auth.get_current_datetime
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: now() + timedelta(minutes=20))
        assert (await save(storage)).store == "local"
        await assert_misconfigured(storage, "RequestTimeTooSkewed", caplog)
        monkeypatch.undo()
        await until(storage, "closed")


async def test_a_bucket_that_disappears_is_named_and_found_again(
    s3_server: S3Server, s3_config: MakeConfig, raw_s3: Any, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"vanishing-{uuid4().hex[:8]}"
    raw_s3.create_bucket(Bucket=name)
    async with running(s3_config(s3_server, s3_bucket_name=name, s3_retry_after_s=0.2)) as storage:
        raw_s3.delete_bucket(Bucket=name)
        assert (await save(storage)).store == "local"
        await assert_misconfigured(storage, "NoSuchBucket", caplog)
        raw_s3.create_bucket(Bucket=name)
        await until(storage, "closed")
        assert (await save(storage)).store == "s3"


async def test_denied_writes_are_found_by_the_canary_although_reading_works(
    s3_reader: S3Server, s3_config: MakeConfig, raw_s3: Any, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    raw_s3.put_object(Bucket=bucket, Key="audio/conv_r/2026/01/15/read.wav", Body=b"readable")
    async with StorageService(s3_config(s3_reader)) as storage:
        await assert_misconfigured(storage, "AccessDenied", caplog)
        assert (await save(storage)).store == "local"
        assert await read(storage, f"s3://{bucket}/audio/conv_r/2026/01/15/read.wav") == b"readable"


async def test_denied_writes_stop_the_start_where_nothing_may_stay_local(
    s3_reader: S3Server, s3_config: MakeConfig
) -> None:
    with pytest.raises(StorageMisconfigured, match="AccessDenied"):
        await StorageService(s3_config(s3_reader, fallback=False)).start()


async def assert_misconfigured(storage: StorageService, code: str, caplog: pytest.LogCaptureFixture) -> None:
    info = await storage.get_info(ask=False)
    assert (info.breaker, info.cause, info.s3_enabled) == ("open", "configuration", False)
    assert info.reason and code in info.reason
    assert any(record.levelname == "ERROR" and code in record.message for record in caplog.records)


@pytest.mark.parametrize(("status", "code"), [(413, "EntityTooLarge"), (400, "InvalidArgument")])
async def test_one_object_that_is_refused_is_parked_and_the_others_go_on(
    faulty: FaultProxy, s3_config: MakeConfig, status: int, code: str
) -> None:
    async with running_behind(faulty, s3_config(faulty.server)) as storage:
        faulty.answer = lambda head: (status, code) if head.startswith("PUT") and "/poison.wav" in head else None
        for _ in range(2 * FAILURES_IN_A_ROW):
            poison = await storage.save_audio_file(MUCH, conversation(), "poison.wav")
            assert poison.store == "local" and poison.parked and code in poison.parked
        assert (await save(storage)).store == "s3"
        assert (await storage.get_info(ask=False)).breaker == "closed"
        assert await read(storage, poison.locator) == MUCH


async def test_a_store_that_refuses_everything_parks_nothing(faulty: FaultProxy, s3_config: MakeConfig) -> None:
    async with running_behind(faulty, s3_config(faulty.server)) as storage:
        faulty.answer = lambda head: (400, "InvalidArgument") if head.startswith("PUT") else None
        stored = await save(storage)
        assert (stored.store, stored.parked) == ("local", None)
        info = await storage.get_info(ask=False)
        assert (info.breaker, info.cause) == ("open", "configuration")


async def test_a_save_whose_answer_was_lost_is_kept_once_more_and_nothing_is_overwritten(
    faulty: FaultProxy, s3_config: MakeConfig
) -> None:
    async with running(s3_config(faulty.server, s3_retry_after_s=0.2, **QUICK)) as storage:
        conversation_id = conversation()
        faulty.mode = "lostreply"
        first = await storage.save_audio_file(b"first", conversation_id, "m.wav")
        faulty.mode = "pass"
        await until(storage, "closed")
        second = await storage.save_audio_file(b"second", conversation_id, "m.wav")
        assert await read(storage, first.locator) == b"first"
        assert await read(storage, second.locator) == b"second"


async def test_a_bit_flipped_on_the_way_back_is_told(faulty: FaultProxy, s3_config: MakeConfig) -> None:
    async with running(s3_config(faulty.server)) as storage:
        stored = await save(storage)
        expected = Expected(stored.size_bytes, stored.sha256)
        assert b"".join([chunk async for chunk in storage.open(stored.locator, expected=expected)]) == MUCH
        faulty.mode = "flip"
        with pytest.raises(ObjectCorrupt, match="aperta storage verify --deep"):
            async for _ in storage.open(stored.locator, expected=expected):
                pass


async def test_an_object_that_was_replaced_in_the_bucket_is_not_handed_out(
    s3_server: S3Server, s3_config: MakeConfig, raw_s3: Any, bucket: str
) -> None:
    async with running(s3_config(s3_server)) as storage:
        stored = await save(storage)
        key = stored.locator.removeprefix(f"s3://{bucket}/")
        expected = Expected(stored.size_bytes, stored.sha256, stored.version)
        await storage.access(stored.locator, filename="m.wav", content_type="audio/wav", expected=expected)

        flipped = bytes([MUCH[0] ^ 1]) + MUCH[1:]
        for other, why in ((flipped, "SHA-256"), (MUCH[:-1], "bytes instead of")):
            raw_s3.put_object(Bucket=bucket, Key=key, Body=other, Metadata={"sha256": stored.sha256})
            with pytest.raises(ObjectCorrupt, match=why):
                await storage.access(stored.locator, filename="m.wav", content_type="audio/wav", expected=expected)

        raw_s3.put_object(Bucket=bucket, Key=key, Body=MUCH, ContentType="audio/x-copied")
        await storage.access(stored.locator, filename="m.wav", content_type="audio/wav", expected=expected)


async def test_a_local_copy_is_served_while_the_store_is_away_and_only_if_it_is_the_same(
    faulty: FaultProxy, s3_config: MakeConfig, tmp_path: Path
) -> None:
    config = s3_config(faulty.server, upload_dir=str(tmp_path / "uploads"), **QUICK)
    async with running(config) as storage:
        stored = await save(storage)
        expected = Expected(stored.size_bytes, stored.sha256, stored.version)

        async def access() -> object:
            return await storage.access(stored.locator, filename="m.wav", content_type="audio/wav", expected=expected)

        faulty.mode = "refuse"
        with pytest.raises(StorageUnavailable):
            await access()
        copy = tmp_path / "uploads" / stored.key
        copy.parent.mkdir(parents=True)
        copy.write_bytes(MUCH)
        assert await access() == LocalFile(copy)
        copy.write_bytes(b"something else of this name")
        with pytest.raises(StorageUnavailable):
            await access()


async def test_readers_do_not_wait_for_a_store_that_is_known_to_be_silent(
    faulty: FaultProxy, s3_config: MakeConfig
) -> None:
    async with running(s3_config(faulty.server, **QUICK)) as storage:
        stored = await save(storage)
        faulty.mode = "blackhole"
        await save(storage)
        begun = time.monotonic()
        for _ in range(10):
            with pytest.raises(StorageUnavailable, match=r"could not be asked|did not answer"):
                await storage.access(stored.locator, filename="m.wav", content_type="audio/wav")
        assert time.monotonic() - begun < 1


async def test_links_carry_the_address_that_clients_know(s3_server: S3Server, s3_config: MakeConfig) -> None:
    config = s3_config(s3_server, s3_public_endpoint_url="https://recordings.example.net")
    async with running(config) as storage:
        stored = await save(storage)
        given = await storage.access(stored.locator, filename="m.wav", content_type="audio/wav")
    assert isinstance(given, PresignedUrl)
    assert given.url.startswith(f"https://recordings.example.net/{config.s3_bucket_name}/audio/")
