"""The spool: complete and hashed, or gone."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.concurrency.lanes import ThreadLane
from backend.domain.lifecycle import INTERRUPTED_UPLOADS
from backend.errors import StorageError, StorageFull, StorageMisconfigured, StorageUnavailable, TooLarge
from backend.services.storage.files import CHUNK_BYTES, storage_error
from backend.services.storage.spool.temporary import Spool
from tests.contracts.store_contract import chunked

pytestmark = pytest.mark.anyio


class CountingLane(ThreadLane):
    hops = 0

    async def run(self, *args, **kwargs):
        self.hops += 1
        return await super().run(*args, **kwargs)


@pytest.fixture
def lane() -> CountingLane:
    return CountingLane("disk", 4)


@pytest.fixture
def spool(upload_dir: Path, lane: CountingLane) -> Spool:
    return Spool(upload_dir, lane)


def parts(upload_dir: Path) -> list[Path]:
    return list((upload_dir / ".spool").glob("*"))


async def test_bytes_size_and_hash(spool: Spool, upload_dir: Path) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 13)
    async with spool.receive(chunked(data, 100_000)) as spooled:
        assert spooled.path.parent == upload_dir / ".spool"
        assert spooled.path.read_bytes() == data
        assert (spooled.size_bytes, spooled.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert spooled.path.stat().st_mode & 0o777 == 0o600
    assert not parts(upload_dir)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=20))
async def test_any_chunking_gives_the_same_file(spool: Spool, chunks: list[bytes]) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async with spool.receive(stream()) as spooled:
        assert spooled.path.read_bytes() == b"".join(chunks)
        assert spooled.sha256 == hashlib.sha256(b"".join(chunks)).hexdigest()


async def test_tiny_chunks_do_not_cost_a_thread_hop_each(spool: Spool, lane: CountingLane) -> None:
    async with spool.receive(chunked(b"x" * CHUNK_BYTES * 2, 1000)):
        assert lane.hops <= 5


async def test_too_large_is_noticed_while_receiving(spool: Spool, upload_dir: Path) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1000
            yield b"x" * 1000

    with pytest.raises(TooLarge, match="10000 bytes"):
        async with spool.receive(endless(), max_bytes=10_000):
            pass
    assert sent == 11_000
    assert not parts(upload_dir)


async def test_exactly_the_limit_is_allowed(spool: Spool) -> None:
    async with spool.receive(chunked(b"x" * 1000, 10), max_bytes=1000) as spooled:
        assert spooled.size_bytes == 1000


async def test_a_stream_that_breaks_leaves_nothing(spool: Spool, upload_dir: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * CHUNK_BYTES
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        async with spool.receive(broken()):
            pass
    assert not parts(upload_dir)


async def test_a_cancelled_receiver_leaves_nothing(spool: Spool, upload_dir: Path) -> None:
    arrived = asyncio.Event()

    async def stalled() -> AsyncIterator[bytes]:
        yield b"x" * CHUNK_BYTES
        arrived.set()
        await asyncio.sleep(60)

    async def receive() -> None:
        async with spool.receive(stalled()):
            pass

    task = asyncio.create_task(receive())
    await arrived.wait()
    assert parts(upload_dir)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not parts(upload_dir)


async def test_a_cancelled_write_is_waited_for(lane: CountingLane) -> None:
    finished = []

    def slow() -> None:
        time.sleep(0.2)
        finished.append(True)

    task = asyncio.create_task(lane.run(slow))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert finished


async def test_the_file_may_be_taken_away(spool: Spool, tmp_path: Path) -> None:
    async with spool.receive(chunked(b"abc", 1)) as spooled:
        spooled.path.rename(tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == b"abc"


async def test_what_a_killed_process_left_is_swept_at_start(spool: Spool, upload_dir: Path) -> None:
    folder = upload_dir / ".spool"
    folder.mkdir(parents=True)
    old, young = folder / "old.part", folder / "young.part"
    for path in (old, young):
        path.write_bytes(b"x")
    long_ago = time.time() - INTERRUPTED_UPLOADS.keep_s - 60
    os.utime(old, (long_ago, long_ago))
    await spool.start()
    assert parts(upload_dir) == [young]


async def test_an_upload_dir_that_is_a_file(tmp_path: Path, lane: CountingLane) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageMisconfigured, match="must be a folder"):
        await Spool(tmp_path / "file", lane).start()


async def test_a_folder_that_is_replaced_while_running_keeps_its_meaning(spool: Spool, upload_dir: Path) -> None:
    await spool.start()
    (upload_dir / ".spool").rmdir()
    (upload_dir / ".spool").write_text("not a folder")
    with pytest.raises(StorageMisconfigured, match="must be a folder"):
        async with spool.receive(chunked(b"x", 1)):
            pass


async def test_what_cannot_be_removed_is_logged(
    spool: Spool, upload_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with spool.receive(chunked(b"x", 1)) as spooled:
        spooled.path.unlink()
        spooled.path.mkdir()
    assert str(spooled.path) in caplog.text and "left behind" in caplog.text
    assert parts(upload_dir) == [spooled.path]


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[None]:
    """Mount a tmpfs; without the right to do so the test is skipped."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk(spool: Spool, upload_dir: Path) -> None:
    with small_disk(upload_dir, "size=2m"):
        with pytest.raises(StorageFull, match="UPLOAD_DIR"):
            async with spool.receive(chunked(b"x" * 4 * CHUNK_BYTES, 65536)):
                pass
        assert not parts(upload_dir)
        async with spool.receive(chunked(b"small", 5)) as spooled:
            assert spooled.size_bytes == 5


async def test_a_read_only_disk(spool: Spool, upload_dir: Path) -> None:
    with small_disk(upload_dir, "ro"), pytest.raises(StorageMisconfigured, match="Read-only"):
        async with spool.receive(chunked(b"x", 1)):
            pass


async def test_a_disk_that_becomes_read_only(spool: Spool, upload_dir: Path) -> None:
    with small_disk(upload_dir, "rw"):
        await spool.start()
        await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,ro", str(upload_dir)], check=True)
        with pytest.raises(StorageMisconfigured, match="Read-only"):
            async with spool.receive(chunked(b"x", 1)):
                pass


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EROFS, StorageMisconfigured),
        (errno.EACCES, StorageMisconfigured),
        (errno.EIO, StorageUnavailable),
    ],
)
def test_each_disk_error_keeps_its_meaning(code: int, kind: type[StorageError]) -> None:
    error = storage_error(OSError(code, os.strerror(code)), Path("/uploads"))
    assert type(error) is kind
    assert os.strerror(code) in str(error)


async def test_a_swept_spool_keeps_what_somebody_still_receives(spool: Spool, upload_dir: Path) -> None:
    async with spool.receive(chunked(b"abc", 1)) as spooled:
        long_ago = time.time() - INTERRUPTED_UPLOADS.keep_s - 60
        os.utime(spooled.path, (long_ago, long_ago))
        await spool.sweep()
        assert parts(upload_dir) == [spooled.path]
