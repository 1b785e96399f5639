"""A stored object that is no longer what was saved is not handed out."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backend.errors import ObjectCorrupt
from backend.services.storage import Expected, LocalFile, StorageConfig, StorageService, StoredObject
from backend.services.storage.integrity import Integrity, Proven
from tests.contracts.store_contract import conversation

pytestmark = pytest.mark.anyio

DATA = b"what was saved"
SHA256 = hashlib.sha256(DATA).hexdigest()


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


async def saved(storage: StorageService) -> tuple[StoredObject, Expected]:
    stored = await storage.save_audio_file(DATA, conversation(), "m.wav")
    return stored, Expected(stored.size_bytes, stored.sha256, stored.version, datetime.now(UTC))


async def access(storage: StorageService, stored: StoredObject, expected: Expected) -> LocalFile:
    given = await storage.access(stored.locator, filename="m.wav", content_type="audio/wav", expected=expected)
    assert isinstance(given, LocalFile)
    return given


async def test_a_flipped_bit_is_found_before_and_after_the_file_was_looked_at(local_config: StorageConfig) -> None:
    async with StorageService(local_config) as storage:
        for looked_at in (False, True):
            stored, expected = await saved(storage)
            if looked_at:
                assert (await access(storage, stored, expected)).path.read_bytes() == DATA
            flip_a_bit(Path(stored.locator))
            with pytest.raises(ObjectCorrupt, match=r"SHA-256.*aperta storage verify --deep"):
                await access(storage, stored, expected)


async def test_a_file_that_was_cut_off_is_found_by_its_size(local_config: StorageConfig) -> None:
    async with StorageService(local_config) as storage:
        stored, expected = await saved(storage)
        os.truncate(stored.locator, 5)
        with pytest.raises(ObjectCorrupt, match="5 bytes instead of 14"):
            await access(storage, stored, expected)


async def test_a_file_that_was_put_right_is_handed_out_again(local_config: StorageConfig) -> None:
    async with StorageService(local_config) as storage:
        stored, expected = await saved(storage)
        flip_a_bit(Path(stored.locator))
        with pytest.raises(ObjectCorrupt):
            await access(storage, stored, expected)
        Path(stored.locator).write_bytes(DATA)
        assert (await access(storage, stored, expected)).path.read_bytes() == DATA


def change_in_secret(path: Path, data: bytes) -> None:
    """Other bytes, and nothing that a look at the file's status shows."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_file_is_hashed_once_until_its_status_changes(tmp_path: Path) -> None:
    path, integrity, expected = tmp_path / "a", Integrity(), Expected(len(DATA), SHA256)
    path.write_bytes(DATA)
    integrity.check(path, path.stat(), "a", expected)
    change_in_secret(path, b"X")
    integrity.check(path, path.stat(), "a", expected)
    path.touch()
    with pytest.raises(ObjectCorrupt):
        integrity.check(path, path.stat(), "a", expected)


def test_a_large_file_is_hashed_only_if_it_was_modified_after_it_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * len(DATA))
    modified_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    before, after = modified_at - timedelta(seconds=1), modified_at + timedelta(seconds=1)
    integrity = Integrity(always_hashed_bytes=4)
    integrity.check(path, path.stat(), "a", Expected(len(DATA), SHA256, saved_at=after))
    for saved_at in (before, None):
        with pytest.raises(ObjectCorrupt):
            integrity.check(path, path.stat(), "a", Expected(len(DATA), SHA256, saved_at=saved_at))


def test_what_is_remembered_is_bounded() -> None:
    proven = Proven(remembered=3)
    for number in range(5):
        proven.add(str(number), "state", SHA256)
    assert [proven.knows(str(number), "state", SHA256) for number in range(5)] == [False, False, True, True, True]
    assert not proven.knows("4", "other", SHA256)
