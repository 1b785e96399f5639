"""The watermarks of the local disk: what is warned of, what is refused, and that it passes by itself."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from backend.errors import StorageFull, StorageMisconfigured
from backend.services.storage import StorageConfig, StorageService
from backend.services.storage.spool.space import DiskSpace
from backend.services.storage.spool.temporary import LOOK_EVERY_BYTES
from tests.contracts.store_contract import conversation, read

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
TEBIBYTE = 1024**4


def test_below_the_soft_limit_it_is_low_below_the_hard_one_full(tmp_path: Path) -> None:
    for soft_bytes, hard_bytes, state in ((0, 0, "ok"), (1024 * TEBIBYTE, 0, "low"), (0, 1024 * TEBIBYTE, "full")):
        space = DiskSpace(tmp_path / "not" / "there" / "yet", soft_bytes=soft_bytes, hard_bytes=hard_bytes)
        space.look()
        assert space.state == state
        assert space.free_bytes and space.free_bytes > 0


def test_an_upload_that_does_not_fit_is_refused_and_one_that_does_is_not(tmp_path: Path) -> None:
    space = DiskSpace(tmp_path, soft_bytes=0, hard_bytes=0)
    space.check()
    space.check(1)
    with pytest.raises(StorageFull, match=r"not enough space for an upload of .* MiB: .* free"):
        space.check(1024 * TEBIBYTE)


def test_a_change_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    space = DiskSpace(tmp_path, soft_bytes=1024 * TEBIBYTE, hard_bytes=0)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            space.look()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        space._soft_bytes = 0
        space.look()
    assert "has space again" in caplog.messages[-1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small tmpfs")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if mount.returncode != 0:
        pytest.skip(f"needs the right to mount a small tmpfs: {mount.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


async def chunks(size_bytes: int) -> AsyncIterator[bytes]:
    for _ in range(size_bytes // MIB):
        yield bytes(MIB)


def config(folder: Path, hard_bytes: int) -> StorageConfig:
    return StorageConfig(
        _env_file=None,
        upload_dir=str(folder / "uploads"),
        disk_soft_limit_bytes=4 * MIB,
        disk_hard_limit_bytes=hard_bytes,
    )


async def test_a_full_disk_refuses_uploads_and_lets_the_rest_go_on(small_disk: Path) -> None:
    async with StorageService(config(small_disk, 2 * MIB)) as storage:
        async with storage.spool(chunks(3 * MIB), expected_bytes=3 * MIB) as spooled:
            kept = await storage.save_audio_file(spooled, conversation(), "kept.wav")
        assert (await storage.get_info()).disk == "ok"
        filler = small_disk / "filler"
        filler.write_bytes(bytes(3 * MIB + MIB // 2))
        info = await storage.get_info()
        assert (info.disk, info.free_bytes is not None and info.free_bytes < 2 * MIB) == ("full", True)

        with pytest.raises(StorageFull, match="DISK_HARD_LIMIT_BYTES"):
            async with storage.spool(untouchable()):
                pass
        transcript = await storage.save_transcript("An accepted recording is finished.", conversation())
        assert len(await read(storage, kept.locator)) == 3 * MIB
        await storage.delete(transcript.locator)

        filler.unlink()
        async with storage.spool(chunks(MIB)) as spooled:
            assert spooled.size_bytes == MIB


async def untouchable() -> AsyncIterator[bytes]:
    raise AssertionError("the body is read although there is no space")
    yield b""


async def test_what_does_not_fit_is_refused_before_it_is_read(small_disk: Path) -> None:
    async with StorageService(config(small_disk, 2 * MIB)) as storage:
        with pytest.raises(StorageFull, match=r"for an upload of 7\.0 MiB"):
            async with storage.spool(untouchable(), expected_bytes=7 * MIB):
                pass


async def test_a_disk_that_fills_under_an_upload_ends_it_and_is_free_again(small_disk: Path) -> None:
    async with StorageService(config(small_disk, 0)) as storage:
        with pytest.raises(StorageFull, match="No space left"):
            async with storage.spool(chunks(20 * MIB)):
                pass
        assert (await storage.get_info()).disk == "ok"
        async with storage.spool(chunks(2 * MIB)) as spooled:
            assert (await storage.save_audio_file(spooled, conversation(), "m.wav")).store == "local"


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


async def test_a_disk_that_turns_read_only_refuses_uploads_and_is_read(small_disk: Path) -> None:
    async with StorageService(config(small_disk, 0)) as storage:
        kept = await storage.save_audio_file(b"kept", conversation(), "m.wav")
        remount(small_disk, "ro")
        with pytest.raises(StorageMisconfigured, match="Make UPLOAD_DIR writable"):
            async with storage.spool(untouchable()):
                pass
        assert await read(storage, kept.locator) == b"kept"
        remount(small_disk, "rw")
        async with storage.spool(chunks(MIB)) as spooled:
            assert spooled.size_bytes == MIB


async def test_an_upload_of_unknown_length_is_watched(tmp_path: Path) -> None:
    async with StorageService(config(tmp_path, 0)) as storage:

        async def fills_the_disk() -> AsyncIterator[bytes]:
            yield bytes(LOOK_EVERY_BYTES - MIB)
            storage.parts.space._hard_bytes = 1024 * TEBIBYTE
            yield bytes(2 * MIB)
            raise AssertionError("it was not stopped")

        with pytest.raises(StorageFull):
            async with storage.spool(fills_the_disk()):
                pass
    assert not list((tmp_path / "uploads").rglob("*.part"))
