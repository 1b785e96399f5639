"""What every store promises, as one suite to inherit. A back door looks and writes behind the store's back."""

from __future__ import annotations

import asyncio
import hashlib
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeVar, cast
from uuid import uuid4

import pytest

from backend.errors import InvalidInput, ObjectCorrupt, ObjectExists, ObjectMissing
from backend.services.storage import (
    Access,
    Expected,
    LocalFile,
    ObjectStore,
    PresignedUrl,
    SpooledFile,
    StorageService,
    StoredObject,
    Stream,
)
from backend.services.storage.keys import audio_key
from backend.services.storage.values import Move, NewObject

AT = datetime(2026, 1, 15, 23, 30, tzinfo=UTC)
MIB = 1024 * 1024
T = TypeVar("T")


class Subject(Protocol):
    """What a store and the whole service have in common."""

    def open(self, locator: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]: ...
    async def delete(self, locator: str) -> None: ...
    async def access(self, locator: str, *, filename: str, content_type: str) -> Access: ...


@dataclass(frozen=True)
class Bench:
    """A subject under test with its front door for saving and its back door."""

    subject: Subject
    save: Callable[[bytes, str, str], Awaitable[StoredObject]]
    peek: Callable[[str], bytes | None]
    plant: Callable[[str, bytes], str]


def spooled(data: bytes, folder: Path) -> SpooledFile:
    path = folder / f"{uuid4().hex}.part"
    path.write_bytes(data)
    return SpooledFile(path, len(data), hashlib.sha256(data).hexdigest())


def store_bench(
    store: ObjectStore, folder: Path, peek: Callable[[str], bytes | None], plant: Callable[[str, bytes], str]
) -> Bench:
    async def save(data: bytes, conversation_id: str, filename: str) -> StoredObject:
        source = spooled(data, folder)
        key = audio_key(conversation_id, filename, AT)
        stored = await store.put(NewObject(source, "audio", key, "audio/wav", {"duration": 1.5}))
        assert source.path.read_bytes() == data, "the spool file stays its owner's"
        return stored

    return Bench(store, save, peek, plant)


async def joined(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def read(subject: Subject, locator: str, start: int = 0, end: int | None = None) -> bytes:
    return await joined(subject.open(locator, start, end))


async def size_of(subject: Subject, locator: str) -> int:
    if isinstance(subject, StorageService):
        return await subject.get_size(locator)
    return (await cast(ObjectStore, subject).stat(locator)).size_bytes


def conversation() -> str:
    return f"conv_{uuid4().hex[:12]}"


class StoreContract:
    """Inherit and provide the fixture `bench`."""

    @pytest.mark.parametrize("size_bytes", [0, 1, 3 * MIB + 7, 17 * MIB + 1])
    async def test_what_is_saved_is_there(self, bench: Bench, size_bytes: int) -> None:
        data = (bytes(range(251)) * (size_bytes // 251 + 1))[:size_bytes]
        stored = await bench.save(data, conversation(), "meeting.wav")
        assert bench.peek(stored.locator) == data
        assert await read(bench.subject, stored.locator) == data
        assert (stored.size_bytes, stored.sha256) == (size_bytes, hashlib.sha256(data).hexdigest())
        assert await size_of(bench.subject, stored.locator) == size_bytes

    async def test_the_result_says_what_and_where(self, bench: Bench) -> None:
        conversation_id = conversation()
        stored = await bench.save(b"abc", conversation_id, "meeting.wav")
        assert stored.key == f"{conversation_id}/2026/01/15/meeting.wav"
        assert stored.locator.endswith(stored.key)
        assert str(stored) == stored.locator
        assert (stored.kind, stored.content_type) == ("audio", "audio/wav")

    async def test_what_came_in_by_the_back_door_is_readable(self, bench: Bench) -> None:
        locator = bench.plant(audio_key(conversation(), "planted.wav", AT), b"planted")
        assert await read(bench.subject, locator) == b"planted"

    @pytest.mark.parametrize(
        ("start", "end"),
        [(0, 0), (0, 1), (3, 7), (9, 10), (9, 99), (10, None), (10, 12), (99, None), (5, 5), (0, None)],
    )
    async def test_ranges_are_slices(self, bench: Bench, start: int, end: int | None) -> None:
        locator = bench.plant(audio_key(conversation(), "ten.wav", AT), b"0123456789")
        assert await read(bench.subject, locator, start, end) == b"0123456789"[start:end]

    @pytest.mark.parametrize(("start", "end"), [(-1, None), (5, 4)])
    async def test_a_range_that_makes_no_sense_is_refused(self, bench: Bench, start: int, end: int | None) -> None:
        locator = bench.plant(audio_key(conversation(), "ten.wav", AT), b"0123456789")
        with pytest.raises(InvalidInput):
            await read(bench.subject, locator, start, end)

    async def test_a_missing_object_is_missing(self, bench: Bench) -> None:
        gone = await bench.save(b"x", conversation(), "gone.wav")
        await bench.subject.delete(gone.locator)
        assert bench.peek(gone.locator) is None
        with pytest.raises(ObjectMissing):
            await read(bench.subject, gone.locator)
        with pytest.raises(ObjectMissing):
            await read(bench.subject, gone.locator, 5, 5)
        with pytest.raises(ObjectMissing):
            await size_of(bench.subject, gone.locator)
        with pytest.raises(ObjectMissing):
            await bench.subject.access(gone.locator, filename="gone.wav", content_type="audio/wav")

    async def test_delete_may_be_repeated_and_spares_neighbours(self, bench: Bench) -> None:
        conversation_id = conversation()
        first = await bench.save(b"first", conversation_id, "first.wav")
        second = await bench.save(b"second", conversation_id, "second.wav")
        for _ in range(2):
            await bench.subject.delete(first.locator)
        assert await read(bench.subject, second.locator) == b"second"

    async def test_a_taken_name_is_never_overwritten(self, bench: Bench) -> None:
        conversation_id = conversation()
        first = await bench.save(b"first", conversation_id, "meeting.wav")
        try:
            second = await bench.save(b"second", conversation_id, "meeting.wav")
        except ObjectExists:
            assert bench.peek(first.locator) == b"first"
        else:
            assert second.locator != first.locator
            assert (bench.peek(first.locator), bench.peek(second.locator)) == (b"first", b"second")

    async def test_many_at_once_under_one_name(self, bench: Bench) -> None:
        conversation_id = conversation()
        contents = [f"content {number}".encode() for number in range(12)]
        saves = [bench.save(data, conversation_id, "meeting.wav") for data in contents]
        results = await asyncio.gather(*saves, return_exceptions=True)
        kept = {r.locator: c for r, c in zip(results, contents, strict=True) if isinstance(r, StoredObject)}
        assert kept, results
        assert {type(r) for r in results} <= {StoredObject, ObjectExists}
        assert {locator: bench.peek(locator) for locator in kept} == kept
        assert len(kept) == sum(isinstance(r, StoredObject) for r in results), "each has a key of its own"

    @pytest.mark.parametrize(
        "filename",
        ["../../etc/passwd", "Größe 会議 🎙️.wav", "a b+c%20&d?e#f.wav", "x" * 300 + ".wav", ".hidden", "a\r\nb\0.wav"],
    )
    async def test_any_file_name_is_only_data(self, bench: Bench, filename: str) -> None:
        stored = await bench.save(b"named", conversation(), filename)
        assert await read(bench.subject, stored.locator) == b"named"
        assert bench.peek(stored.locator) == b"named"
        await bench.subject.delete(stored.locator)

    async def test_access_gives_the_bytes(self, bench: Bench) -> None:
        stored = await bench.save(b"for a client", conversation(), "meeting.wav")
        given = await bench.subject.access(stored.locator, filename="Größe.wav", content_type="audio/wav")
        if isinstance(given, LocalFile):
            assert given.path.read_bytes() == b"for a client"
        elif isinstance(given, Stream):
            assert given.size_bytes == len(b"for a client")
            assert await joined(given.open(0, None)) == b"for a client"
            assert await joined(given.open(4, 6)) == b"a "
        elif given.url.startswith("http"):
            with await asyncio.to_thread(urllib.request.urlopen, given.url) as reply:
                assert reply.read() == b"for a client"
                assert reply.headers["Content-Type"] == "audio/wav"
                assert "filename*=UTF-8''Gr%C3%B6%C3%9Fe.wav" in reply.headers["Content-Disposition"]

    async def test_a_reader_may_stop_early(self, bench: Bench) -> None:
        locator = bench.plant(audio_key(conversation(), "long.wav", AT), b"x" * (3 * MIB))
        async with aclosing(bench.subject.open(locator)) as chunks:
            assert await anext(chunks)
        assert await read(bench.subject, locator, 0, 2) == b"xx"


class UpkeepContract:
    """What every store offers for comparing it with the rows. Inherit and provide the fixture `bench`."""

    @pytest.fixture
    def store(self, bench: Bench) -> ObjectStore:
        assert not isinstance(bench.subject, StorageService)
        return cast(ObjectStore, bench.subject)

    async def test_access_answers_as_the_traits_say(self, bench: Bench, store: ObjectStore) -> None:
        stored = await bench.save(b"for a client", conversation(), "meeting.wav")
        given = await store.access(stored.locator, filename="a.wav", content_type="audio/wav")
        assert isinstance(given, LocalFile) == store.traits.serves_paths
        assert isinstance(given, PresignedUrl) == store.traits.presigns

    async def test_access_refuses_what_is_not_expected(self, bench: Bench, store: ObjectStore) -> None:
        stored = await bench.save(b"for a client", conversation(), "meeting.wav")
        right = Expected(stored.size_bytes, stored.sha256, stored.version)
        for expected in (right, replace(right, version=None), replace(right, version="of another store")):
            await store.access(stored.locator, filename="a.wav", content_type="audio/wav", expected=expected)
        others = (replace(right, size_bytes=5), replace(right, sha256="0" * 64, version="of another store"))
        for expected in others:
            with pytest.raises(ObjectCorrupt):
                await store.access(stored.locator, filename="a.wav", content_type="audio/wav", expected=expected)

    async def test_the_version_differs_once_the_bytes_have_changed(self, bench: Bench, store: ObjectStore) -> None:
        key = audio_key(conversation(), "planted.wav", AT)
        locator = bench.plant(key, b"12345")
        before = await store.stat(locator)
        assert await store.stat(locator) == before
        await store.delete(locator)
        bench.plant(key, b"54321")
        assert (await store.stat(locator)).version != before.version

    async def test_a_move_takes_over_what_an_earlier_one_left(
        self, bench: Bench, store: ObjectStore, tmp_path: Path
    ) -> None:
        first = await bench.save(b"same", conversation(), "meeting.wav")
        if store.traits.is_local:
            pytest.skip("nothing moves into a folder")
        same = NewObject(spooled(b"same", tmp_path), "audio", first.key, "audio/wav", move=Move())
        again = await store.put(same)
        assert (again.locator, again.sha256, again.size_bytes) == (first.locator, first.sha256, first.size_bytes)
        with pytest.raises(ObjectExists):
            await store.put(replace(same, spooled=spooled(b"SAME", tmp_path)))

    async def test_the_listing_says_what_is_there_and_since_when(self, bench: Bench, store: ObjectStore) -> None:
        began, conversation_id = datetime.now(UTC), conversation()
        stored = await bench.save(b"12345", conversation_id, "Größe 1.wav")
        [listed] = [item async for item in store.iterate() if item.key.startswith(f"{conversation_id}/")]
        assert (listed.locator, listed.key, listed.size_bytes) == (stored.locator, stored.key, 5)
        assert abs(listed.modified_at - began) < timedelta(seconds=30)

    async def test_a_conversation_is_listed_without_its_neighbours(self, bench: Bench, store: ObjectStore) -> None:
        first = conversation()
        mine = {(await bench.save(b"x", first, filename)).locator for filename in ("a.wav", "b.wav")}
        for neighbour in (f"{first}0", f"{first}-1", f"{first}_"):
            await bench.save(b"x", neighbour, "a.wav")
        listed = [item.locator async for item in store.iterate(conversation_id=first)]
        assert (set(listed), len(listed)) == (mine, 2)

    async def test_a_listing_goes_on_after_any_of_its_objects(self, bench: Bench, store: ObjectStore) -> None:
        first = conversation()
        for name in (first, f"{first}-1", f"{first}_1"):
            for filename in ("a.wav", "a b.wav", "ä.wav", "a-1.wav"):
                await bench.save(b"x", name, filename)

        listed = [item.locator async for item in store.iterate() if first in item.locator]
        assert len(listed) == 12
        for number, locator in enumerate(listed):
            rest = [item.locator async for item in store.iterate(after=locator) if first in item.locator]
            assert rest == listed[number + 1 :]

    async def test_sizes_of_what_is_there(self, bench: Bench, store: ObjectStore) -> None:
        conversation_id = conversation()
        here = await bench.save(b"12345", conversation_id, "here.wav")
        gone = await bench.save(b"123", conversation_id, "gone.wav")
        await store.delete(gone.locator)
        assert await store.find_sizes([here.locator, gone.locator]) == {here.locator: 5}
        assert await store.find_sizes([]) == {}

    async def test_quarantine_keeps_the_bytes_out_of_the_way(self, bench: Bench, store: ObjectStore) -> None:
        stored = await bench.save(b"suspect", conversation(), "a b.wav")
        moved_to = await store.move_to_quarantine(stored.locator)
        assert bench.peek(stored.locator) is None
        assert bench.peek(moved_to) == b"suspect"
        assert stored.locator not in [item.locator async for item in store.iterate()]
        assert moved_to not in [item.locator async for item in store.iterate()]
        assert [item.size_bytes async for item in store.iterate_quarantine() if item.locator == moved_to] == [7]

    async def test_what_is_in_quarantine_is_not_overwritten(self, bench: Bench, store: ObjectStore) -> None:
        conversation_id, moved = conversation(), {}
        for data in (b"first", b"second", b"third"):
            stored = await bench.save(data, conversation_id, "a.wav")
            moved[await store.move_to_quarantine(stored.locator)] = data
        assert {locator: bench.peek(locator) for locator in moved} == moved
        assert len(moved) == 3

    async def test_what_is_missing_cannot_be_moved(self, bench: Bench, store: ObjectStore) -> None:
        stored = await bench.save(b"x", conversation(), "a.wav")
        await store.delete(stored.locator)
        with pytest.raises(ObjectMissing):
            await store.move_to_quarantine(stored.locator)

    async def test_only_the_quarantine_is_emptied(self, bench: Bench, store: ObjectStore) -> None:
        stored = await bench.save(b"good", conversation(), "a.wav")
        with pytest.raises(InvalidInput):
            await store.delete_quarantined(stored.locator)
        assert bench.peek(stored.locator) == b"good"
        moved_to = await store.move_to_quarantine(stored.locator)
        for _ in range(2):
            await store.delete_quarantined(moved_to)
        assert bench.peek(moved_to) is None

    async def test_no_upload_is_unfinished(self, bench: Bench, store: ObjectStore) -> None:
        await bench.save(b"x", conversation(), "a.wav")
        assert [upload async for upload in store.iterate_uploads()] == []


async def chunked(data: bytes, size: int) -> AsyncIterator[bytes]:
    for offset in range(0, len(data), size):
        yield data[offset : offset + size]
