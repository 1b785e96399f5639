"""Files that grow over several requests: what was noted as arrived is there, whatever breaks."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pytest

from backend.concurrency.lanes import ThreadLane
from backend.errors import ChecksumMismatch, ObjectMissing, StorageFull, TooLarge, UploadInUse
from backend.services.storage.files import CHUNK_BYTES
from backend.services.storage.spool.resumable import SAFE_EVERY_BYTES, Checksum, GrowingFiles
from tests.contracts.store_contract import chunked

pytestmark = pytest.mark.anyio

NAME = "meeting.part"
DATA = os.urandom(3 * CHUNK_BYTES + 17)


class Cut(Exception):
    pass


@pytest.fixture
def files(upload_dir: Path) -> GrowingFiles:
    return GrowingFiles(upload_dir, ThreadLane("disk", 4))


@pytest.fixture
def path(upload_dir: Path) -> Path:
    return upload_dir / ".spool" / "uploads" / NAME


@contextmanager
def held_by_another_process(path: Path) -> Iterator[None]:
    holder = "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX); print('held'); input()"
    command = [sys.executable, "-c", holder, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline()
        yield
        other.kill()


async def broken_off(data: bytes) -> AsyncIterator[bytes]:
    async for chunk in chunked(data, 65_536):
        yield chunk
    raise Cut


async def receive(
    files: GrowingFiles,
    stream: AsyncIterator[bytes],
    start: int = 0,
    limit: int = 10**9,
    checksum: Checksum | None = None,
) -> list[int]:
    """Returns what was noted; what broke the stream off is swallowed."""
    noted: list[int] = []

    async def note(arrived: int) -> None:
        noted.append(arrived)

    async with files.open(NAME) as file:
        with suppress(Cut):
            await file.receive(stream, start_bytes=start, max_bytes=limit, note=note, checksum=checksum)
    return noted


async def hash_of(files: GrowingFiles, size: int) -> str:
    async with files.open(NAME) as file:
        return await file.hash(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def test_pieces_become_one_file(files: GrowingFiles, path: Path) -> None:
    await files.create(NAME)
    first, second = DATA[:1_500_000], DATA[1_500_000:]
    assert await receive(files, chunked(first, 10_000)) == [len(first)]
    assert await receive(files, chunked(second, 70_000), start=len(first)) == [len(DATA)]
    assert path.read_bytes() == DATA
    assert path.stat().st_mode & 0o777 == 0o600
    assert await hash_of(files, len(DATA)) == sha256(DATA)


async def test_a_stream_that_breaks_off_keeps_what_came(files: GrowingFiles, path: Path) -> None:
    await files.create(NAME)
    [arrived] = await receive(files, broken_off(DATA[:700_000]))
    assert arrived == 700_000
    await receive(files, chunked(DATA[arrived:], 50_000), start=arrived)
    assert path.read_bytes() == DATA
    assert await hash_of(files, len(DATA)) == sha256(DATA)


async def test_a_receiver_that_is_stopped_keeps_what_came(files: GrowingFiles, path: Path) -> None:
    await files.create(NAME)
    noted = []

    async def note(arrived: int) -> None:
        noted.append(arrived)

    async def stalled() -> AsyncIterator[bytes]:
        async for chunk in chunked(DATA, 65_536):
            yield chunk
        scope.cancel()
        await anyio.sleep(60)

    with anyio.CancelScope() as scope:
        async with files.open(NAME) as file:
            await file.receive(stalled(), start_bytes=0, max_bytes=10**9, note=note)
    assert noted == [len(DATA)]
    assert path.read_bytes() == DATA
    assert await hash_of(files, len(DATA)) == sha256(DATA)


async def test_a_long_stream_is_noted_on_the_way(files: GrowingFiles) -> None:
    await files.create(NAME)
    size = SAFE_EVERY_BYTES + 3 * CHUNK_BYTES
    noted = await receive(files, chunked(bytes(size), CHUNK_BYTES))
    assert noted == [SAFE_EVERY_BYTES, size]


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
async def test_a_piece_with_its_checksum_is_kept(files: GrowingFiles, path: Path, algorithm: str) -> None:
    await files.create(NAME)
    checksum = Checksum(algorithm, hashlib.new(algorithm, DATA).digest())
    assert await receive(files, chunked(DATA, 65_536), checksum=checksum) == [len(DATA)]
    assert path.read_bytes() == DATA
    assert await hash_of(files, len(DATA)) == sha256(DATA)


async def test_a_piece_with_another_checksum_changes_nothing(files: GrowingFiles, path: Path) -> None:
    await files.create(NAME)
    await receive(files, chunked(DATA[:1000], 100))
    wrong = Checksum("sha1", hashlib.sha1(b"other").digest())
    with pytest.raises(ChecksumMismatch):
        await receive(files, chunked(b"x" * 2 * CHUNK_BYTES, 65_536), start=1000, checksum=wrong)
    await receive(files, chunked(DATA[1000:], 65_536), start=1000)
    assert path.read_bytes() == DATA
    assert await hash_of(files, len(DATA)) == sha256(DATA)


async def test_of_a_piece_with_a_checksum_that_breaks_off_nothing_is_noted(files: GrowingFiles) -> None:
    await files.create(NAME)
    checksum = Checksum("sha256", hashlib.sha256(DATA).digest())
    assert await receive(files, broken_off(DATA[:2_000_000]), checksum=checksum) == []
    assert await receive(files, chunked(DATA, 65_536), checksum=checksum) == [len(DATA)]
    assert await hash_of(files, len(DATA)) == sha256(DATA)


async def test_what_was_written_but_not_noted_is_cut_off(files: GrowingFiles, path: Path) -> None:
    await files.create(NAME)
    await receive(files, chunked(DATA[:1000], 1000))
    with path.open("ab") as file:
        file.write(b"torn by a power loss" * 1000)
    await receive(files, chunked(DATA[1000:], 65_536), start=1000)
    assert path.read_bytes() == DATA


async def test_a_file_that_lost_bytes_is_refused(files: GrowingFiles, path: Path) -> None:
    await files.create(NAME)
    await receive(files, chunked(DATA[:1000], 1000))
    os.truncate(path, 500)
    with pytest.raises(ObjectMissing, match="shorter"):
        await receive(files, chunked(DATA[1000:], 65_536), start=1000)


async def test_the_hash_is_found_again_after_a_restart(files: GrowingFiles, upload_dir: Path) -> None:
    await files.create(NAME)
    await receive(files, chunked(DATA[:1000], 1000))
    restarted = GrowingFiles(upload_dir, ThreadLane("disk", 4))
    await receive(restarted, chunked(DATA[1000:], 65_536), start=1000)
    assert await hash_of(restarted, len(DATA)) == sha256(DATA)


async def test_no_more_than_may_come_is_taken(files: GrowingFiles, path: Path) -> None:
    await files.create(NAME)
    with pytest.raises(TooLarge, match="1000"):
        await receive(files, chunked(DATA, 300), limit=1000)
    assert path.stat().st_size <= 1000


async def test_one_at_a_time(files: GrowingFiles) -> None:
    await files.create(NAME)
    async with files.open(NAME):
        with pytest.raises(UploadInUse):
            async with files.open(NAME):
                pass
    async with files.open(NAME):
        pass


async def test_one_at_a_time_across_processes(files: GrowingFiles, path: Path) -> None:
    await files.create(NAME)
    with held_by_another_process(path), pytest.raises(UploadInUse):
        async with files.open(NAME):
            pass
    async with files.open(NAME):
        pass


async def test_a_file_of_another_machine(files: GrowingFiles) -> None:
    with pytest.raises(ObjectMissing, match="not on this machine"):
        async with files.open(NAME):
            pass


async def test_a_complete_file_is_lent_without_a_copy(files: GrowingFiles, path: Path, tmp_path: Path) -> None:
    await files.create(NAME)
    await receive(files, chunked(DATA, 65_536))
    async with files.open(NAME) as file, file.lent(len(DATA)) as spooled:
        assert (spooled.size_bytes, spooled.sha256) == (len(DATA), sha256(DATA))
        assert spooled.path.samefile(path)
        spooled.path.rename(tmp_path / "taken")
    assert (tmp_path / "taken").read_bytes() == path.read_bytes() == DATA
    async with files.open(NAME) as file, file.lent(len(DATA)):
        pass
    assert [item.name for item in path.parent.iterdir()] == [NAME]


@contextmanager
def files_may_have(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_disk_that_takes_no_more(files: GrowingFiles, path: Path) -> None:
    await files.create(NAME)
    await receive(files, chunked(DATA[:1000], 1000))
    with files_may_have(CHUNK_BYTES), pytest.raises(StorageFull):
        await receive(files, chunked(DATA[1000:], 65_536), start=1000)
    await receive(files, chunked(DATA[1000:], 65_536), start=1000)
    assert path.read_bytes() == DATA
    assert await hash_of(files, len(DATA)) == sha256(DATA)
