"""StorageService as its callers see it: where things go, what is said when they go elsewhere, and the way back."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from backend.errors import InvalidInput, ObjectMissing, StorageError, StorageMisconfigured, StorageUnavailable, TooLarge
from backend.services.storage import LocalFile, StorageConfig, StorageService, Stores
from backend.services.storage.placement.breaker import FAILURES_IN_A_ROW
from backend.services.storage.placement.parts import open_parts
from backend.services.storage.stores.memory import MemoryStore
from tests.contracts.store_contract import AT, chunked, conversation, read
from tests.support.servers import PROJECT, FaultProxy, S3Server, free_port

pytestmark = pytest.mark.anyio

MakeConfig = Callable[..., StorageConfig]


async def eventually_on(storage: StorageService, limit_s: float = 10) -> None:
    deadline = time.monotonic() + limit_s
    while not (await storage.get_info()).s3_enabled:
        assert time.monotonic() < deadline, "S3 did not come back"
        await asyncio.sleep(0.02)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class TestLocal:
    async def test_the_three_files_of_a_conversation(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        async with StorageService(StorageConfig(_env_file=None)) as storage:
            audio, transcript, metadata = await asyncio.gather(
                storage.save_audio_file(file_content=b"RIFF", conversation_id="conv_1", filename="meeting.wav", at=AT),
                storage.save_transcript(transcript_text="Speaker 1: Grüße", conversation_id="conv_1", at=AT),
                storage.save_metadata({"at": AT, "n": 2}, "conv_1", filename="meeting.wav", at=AT),
            )
            assert await read(storage, transcript.locator) == "Speaker 1: Grüße".encode()
            assert json.loads(await read(storage, metadata.locator)) == {"at": "2026-01-15 23:30:00+00:00", "n": 2}
        folder = "./uploads/conv_1/2026/01/15"
        assert (str(audio), str(transcript), str(metadata)) == (
            f"{folder}/meeting.wav",
            f"{folder}/conv_1_transcript.txt",
            f"{folder}/meeting_metadata.json",
        )
        assert len(files(tmp_path / "uploads")) == 3
        assert (audio.content_type, audio.store, audio.warnings) == ("audio/x-wav", "local", ())

    async def test_a_path_is_copied_and_stays(self, local_config: StorageConfig, tmp_path: Path) -> None:
        source = tmp_path / "mine.wav"
        source.write_bytes(b"original")
        async with StorageService(local_config) as storage:
            stored = await storage.save_audio_file(source, conversation(), source.name)
            source.write_bytes(b"changed!")
            assert await read(storage, stored.locator) == b"original"
            with pytest.raises(InvalidInput, match="cannot be read"):
                await storage.save_audio_file(tmp_path / "absent.wav", conversation(), "absent.wav")

    async def test_a_spooled_stream_is_linked_not_copied(self, local_config: StorageConfig, upload_dir: Path) -> None:
        async with StorageService(local_config) as storage:
            async with storage.spool(chunked(b"x" * 5000, 7)) as spooled:
                stored = await storage.save_audio_file(spooled, conversation(), "meeting.wav")
                assert Path(stored.locator).samefile(spooled.path)
            assert files(upload_dir) == [stored.key]
            with pytest.raises(TooLarge):
                async with storage.spool(chunked(b"x" * 5000, 7), max_bytes=4999):
                    pass
            assert files(upload_dir) == [stored.key]

    async def test_names_that_meet_are_all_kept(self, local_config: StorageConfig) -> None:
        async with StorageService(local_config) as storage:
            saves = [storage.save_transcript(f"text {n}", "conv_1", at=AT) for n in range(20)]
            stored = await asyncio.gather(*saves)
            texts = {await read(storage, one.locator) for one in stored}
        assert texts == {f"text {n}".encode() for n in range(20)}

    async def test_it_starts_by_itself_and_says_what_it_is(self, local_config: StorageConfig, upload_dir: Path) -> None:
        storage = StorageService(local_config)
        stored = await storage.save_audio_file(b"x", conversation(), "m.wav", at=datetime.now(UTC))
        given = await storage.access(stored.locator, filename="m.wav", content_type="audio/wav")
        assert given == LocalFile(Path(stored.locator))
        info = await storage.get_info()
        assert (info.storage_type, info.local_path, info.s3_enabled) == ("local", str(upload_dir), False)
        assert (info.s3_bucket, info.reason) == (None, None)
        assert info.free_bytes and info.free_bytes > 0
        await storage.close()

    async def test_an_object_in_a_store_that_is_not_used_is_no_missing_object(
        self, local_config: StorageConfig
    ) -> None:
        async with StorageService(local_config) as storage:
            with pytest.raises(StorageMisconfigured, match="S3_BUCKET_NAME is not set"):
                storage.open("s3://bucket/audio/x.wav")
            with pytest.raises(InvalidInput):
                await storage.delete("ftp://host/x.wav")

    async def test_metadata_that_json_cannot_hold(self, local_config: StorageConfig) -> None:
        async with StorageService(local_config) as storage:
            with pytest.raises(InvalidInput, match="JSON"):
                await storage.save_metadata({"x": float("nan")}, "conv_1")

    async def test_an_upload_dir_that_cannot_be_used_stops_the_start(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageMisconfigured, match="must be a folder"):
            await StorageService(StorageConfig(_env_file=None, upload_dir=str(tmp_path / "file"))).start()


class TestChoice:
    async def test_local_never_touches_s3(self, faulty: FaultProxy, s3_config: MakeConfig) -> None:
        async with StorageService(s3_config(faulty.server, storage_backend="local")) as storage:
            stored = await storage.save_audio_file(b"x", conversation(), "m.wav")
            info = await storage.get_info()
        assert (stored.store, stored.warnings) == ("local", ())
        assert (info.storage_type, info.reason) == ("local", "STORAGE_BACKEND=local")
        assert faulty.connections == 0

    async def test_s3_without_a_bucket(self, upload_dir: Path) -> None:
        def config(**more: Any) -> StorageConfig:
            return StorageConfig(_env_file=None, upload_dir=str(upload_dir), storage_backend="s3", **more)

        with pytest.raises(StorageMisconfigured, match="S3_BUCKET_NAME"):
            StorageService(config(fallback=False))
        async with StorageService(config()) as storage:
            assert "S3_BUCKET_NAME" in ((await storage.get_info()).reason or "")

    async def test_without_fallback_errors_are_raised(self, faulty: FaultProxy, s3_config: MakeConfig) -> None:
        config = s3_config(faulty.server, storage_backend="s3", fallback=False, s3_retry_after_s=0.1)
        async with StorageService(config) as storage:
            faulty.mode = "refuse"
            for _ in range(FAILURES_IN_A_ROW):
                with pytest.raises(StorageUnavailable):
                    await storage.save_audio_file(b"x", conversation(), "m.wav")
            info = await storage.get_info(ask=False)
            assert (info.storage_type, info.s3_enabled, info.fallback) == ("s3", False, False)
            faulty.mode = "pass"
            await eventually_on(storage)
            assert (await storage.save_audio_file(b"x", conversation(), "m.wav")).store == "s3"

    async def test_without_fallback_a_wrong_secret_stops_the_start(
        self, swift: S3Server, s3_config: MakeConfig
    ) -> None:
        config = s3_config(swift, fallback=False, aws_secret_access_key="wrong")
        with pytest.raises(StorageMisconfigured, match="SignatureDoesNotMatch"):
            await StorageService(config).start()

    async def test_without_fallback_old_local_objects_stay_readable(
        self, swift: S3Server, s3_config: MakeConfig, local_config: StorageConfig, upload_dir: Path
    ) -> None:
        async with StorageService(local_config) as storage:
            stored = await storage.save_audio_file(b"old", conversation(), "m.wav")
        async with StorageService(s3_config(swift, fallback=False, upload_dir=str(upload_dir))) as storage:
            assert await read(storage, stored.locator) == b"old"


class TestFallback:
    async def test_up_down_and_up_again(
        self, faulty: FaultProxy, s3_config: MakeConfig, bucket: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        config = s3_config(faulty.server, s3_retry_after_s=0.3)
        async with StorageService(config) as storage:
            before = await storage.save_audio_file(b"before", "conv_1", "up.wav", at=AT)
            assert before.locator.startswith(f"s3://{bucket}/audio/conv_1/2026/01/15/up")
            assert (await storage.get_info()).s3_enabled

            faulty.mode = "refuse"
            with caplog.at_level(logging.WARNING):
                during = await storage.save_audio_file(b"during", "conv_1", "down.wav", at=AT)
            assert during.locator == f"{config.upload_dir}/conv_1/2026/01/15/down.wav"
            assert during.locator in during.warnings[0] and "could not be asked" in during.warnings[0]
            assert during.warnings[0] in caplog.text
            with pytest.raises(StorageUnavailable):
                await read(storage, before.locator)
            assert await read(storage, during.locator) == b"during"

            faulty.mode = "pass"
            await eventually_on(storage)
            after = await storage.save_audio_file(b"after", "conv_1", "again.wav", at=AT)
            assert (after.store, after.warnings) == ("s3", ())
            for stored, data in ((before, b"before"), (during, b"during"), (after, b"after")):
                assert await read(storage, stored.locator) == data
                await storage.delete(stored.locator)
                with pytest.raises(ObjectMissing):
                    await storage.get_size(stored.locator)

    async def test_info_tells_the_truth_at_once(self, faulty: FaultProxy, s3_config: MakeConfig, bucket: str) -> None:
        async with StorageService(s3_config(faulty.server, s3_retry_after_s=0.2)) as storage:
            faulty.mode = "refuse"
            storage.parts.status._asked_at -= 60
            info = await storage.get_info()
            assert (info.storage_type, info.s3_enabled, info.s3_bucket) == ("local", False, bucket)
            assert info.reason and "could not be asked" in info.reason
            faulty.mode = "pass"
            await eventually_on(storage)
            assert (await storage.save_audio_file(b"x", conversation(), "m.wav")).store == "s3"

    async def test_info_does_not_wait_for_a_silent_store(self, faulty: FaultProxy, s3_config: MakeConfig) -> None:
        async with StorageService(s3_config(faulty.server, s3_read_timeout_s=60)) as storage:
            faulty.mode = "blackhole"
            storage.parts.status._asked_at -= 60
            with anyio.fail_after(10):
                assert (await storage.get_info()).breaker == "closed"

    async def test_a_wrong_secret_at_start_turns_s3_off(
        self, swift: S3Server, s3_config: MakeConfig, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with StorageService(s3_config(swift, aws_secret_access_key="wrong")) as storage:
            assert "SignatureDoesNotMatch" in caplog.text
            stored = await storage.save_transcript("text", conversation())
            info = await storage.get_info()
        assert stored.store == "local" and "AWS_SECRET_ACCESS_KEY" in stored.warnings[0]
        assert info.reason and "SignatureDoesNotMatch" in info.reason
        assert "wrong" not in caplog.text

    async def test_a_dead_store_is_waited_for_once(self, faulty: FaultProxy, s3_config: MakeConfig) -> None:
        config = s3_config(faulty.server, s3_connect_timeout_s=0.2, s3_read_timeout_s=0.3)
        async with StorageService(config) as storage:
            faulty.mode = "blackhole"
            await storage.save_audio_file(b"x", conversation(), "m.wav")
            begun, asked = time.monotonic(), faulty.connections
            for _ in range(10):
                assert (await storage.save_audio_file(b"x", conversation(), "m.wav")).warnings
            assert faulty.connections == asked
            assert time.monotonic() - begun < 5

    async def test_one_object_refused_does_not_turn_the_store_off(self, local_config: StorageConfig) -> None:
        primary, fallback = MemoryStore("primary"), MemoryStore("fallback")
        async with StorageService(parts=open_parts(local_config, Stores(primary, fallback))) as storage:
            primary.failure = StorageError("This one is odd.")
            assert (await storage.save_transcript("a", conversation())).store == "fallback"
            primary.failure = None
            assert (await storage.save_transcript("b", conversation())).store == "primary"

    async def test_when_both_fail_the_save_fails_and_leaves_nothing(
        self, local_config: StorageConfig, upload_dir: Path
    ) -> None:
        primary, fallback = MemoryStore("primary"), MemoryStore("fallback")
        async with StorageService(parts=open_parts(local_config, Stores(primary, fallback))) as storage:
            primary.failure = fallback.failure = StorageUnavailable("Both are down.")
            with pytest.raises(StorageUnavailable):
                await storage.save_transcript("a", conversation())
        assert files(upload_dir) == []

    async def test_many_questions_at_once_are_one(self, local_config: StorageConfig) -> None:
        primary = MemoryStore("primary")
        async with StorageService(parts=open_parts(local_config, Stores(primary))) as storage:
            storage.parts.status._asked_at -= 60
            asked = primary.calls
            await asyncio.gather(*(storage.get_info() for _ in range(10)))
            assert primary.calls == asked + 1

    async def test_what_a_save_found_is_told_without_asking(self, local_config: StorageConfig) -> None:
        primary, fallback = MemoryStore("primary"), MemoryStore("fallback")
        async with StorageService(parts=open_parts(local_config, Stores(primary, fallback))) as storage:
            primary.failure = StorageUnavailable("Down.")
            for _ in range(FAILURES_IN_A_ROW):
                await storage.save_transcript("a", conversation())
            asked = primary.calls
            info = await storage.get_info(ask=False)
            assert (info.storage_type, info.reason, primary.calls) == ("fallback", "Down.", asked)


def test_importing_the_service_loads_no_sdk() -> None:
    probe = "import sys, backend.services.storage; sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    subprocess.run([sys.executable, "-c", probe], check=True, cwd=PROJECT)


def test_a_process_may_use_it_from_several_event_loops(local_config: StorageConfig) -> None:
    storage = StorageService(local_config)
    for number in range(3):
        asyncio.run(storage.save_transcript(f"{number}", f"conv_{number}"))


def test_unreachable_from_the_start(s3_config: MakeConfig) -> None:
    async def scenario() -> None:
        async with StorageService(s3_config(S3Server("127.0.0.1", free_port()))) as storage:
            assert (await storage.save_transcript("a", conversation())).store == "local"

    asyncio.run(scenario())
