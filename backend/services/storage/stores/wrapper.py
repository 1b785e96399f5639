"""Stores around other stores: `StoreWrapper` passes every call on, `EncodedStore` keeps other bytes than it is given.

Counting, compressing and encrypting are wrappers. Callers and rows see plain bytes, their size and their SHA-256; only
the inner store sees the encoded ones.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio

from backend.errors import AppError, ObjectExists
from backend.services.storage.files import CHUNK_BYTES, disk_errors
from backend.services.storage.integrity import ALWAYS_HASHED_BYTES, Proven, corrupt, hashed, sha256_of
from backend.services.storage.port import ObjectStore, validated_range
from backend.services.storage.stores.maintained import MaintainedStore
from backend.services.storage.values import (
    Access,
    Expected,
    GiveUp,
    ListedObject,
    NewObject,
    ObjectKind,
    ObjectState,
    SpooledFile,
    StoredObject,
    StoreTraits,
    Stream,
)

ReceiveStream = Callable[[AsyncIterable[bytes]], AbstractAsyncContextManager[SpooledFile]]
"""Writes a stream to a temporary file that lives as long as the context."""


class StoreWrapper(MaintainedStore):
    """Passes every call on to the inner store. A subclass overrides what it changes."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._inner = inner

    @property
    def name(self) -> str:
        return self._inner.name

    @property
    def traits(self) -> StoreTraits:
        return self._inner.traits

    def owns(self, locator: str) -> bool:
        return self._inner.owns(locator)

    def locator(self, kind: ObjectKind, key: str) -> str:
        return self._inner.locator(kind, key)

    def key(self, locator: str) -> str:
        return self._inner.key(locator)

    async def check(self, *, write: bool = True) -> None:
        await self._inner.check(write=write)

    async def put(self, new: NewObject, *, give_up: GiveUp | None = None) -> StoredObject:
        return await self._inner.put(new, give_up=give_up)

    def open(self, locator: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        return self._inner.open(locator, start, end)

    async def stat(self, locator: str) -> ObjectState:
        return await self._inner.stat(locator)

    async def delete(self, locator: str) -> None:
        await self._inner.delete(locator)

    async def access(
        self, locator: str, *, filename: str, content_type: str, expected: Expected | None = None
    ) -> Access:
        return await self._inner.access(locator, filename=filename, content_type=content_type, expected=expected)

    async def close(self) -> None:
        await self._inner.close()


class EncodedObject:
    """An object as the inner store has it, for a codec to read."""

    def __init__(self, inner: ObjectStore, locator: str) -> None:
        self._inner = inner
        self.locator = locator

    async def get_size(self) -> int:
        """Return the encoded size in bytes. Errors as in `ObjectStore.stat`."""
        return (await self._inner.stat(self.locator)).size_bytes

    def open(self, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Stream encoded bytes. Errors as in `ObjectStore.open`."""
        return self._inner.open(self.locator, start, end)


class Codec(Protocol):
    """How bytes become other bytes, and come back."""

    def encode(self, plain: AsyncIterable[bytes], new: NewObject) -> AsyncIterable[bytes]:
        """Return what is stored for an object."""
        ...

    def decode(self, encoded: EncodedObject, start: int, end: int | None) -> AsyncGenerator[bytes, None]:
        """Stream plain bytes `start` up to, not including, `end`.

        Raises:
            ObjectCorrupt: these bytes were not encoded like this.
            StorageError: as the inner store's.
        """
        ...

    async def plain_size(self, encoded: EncodedObject, size_bytes: int) -> int:
        """Return the plain size of an object of this encoded size; a damaged one has a size, too."""
        ...


class EncodedStore(StoreWrapper):
    """Hands out no path and no URL, since those lead to encoded bytes.

    Args:
        inner: keeps the encoded bytes.
        codec: makes and reads them.
        receive: where encoded bytes become a file, before they are stored.
    """

    def __init__(self, inner: ObjectStore, codec: Codec, receive: ReceiveStream) -> None:
        super().__init__(inner)
        self._codec = codec
        self._receive = receive
        self._proven = Proven()

    @property
    def traits(self) -> StoreTraits:
        return replace(self._inner.traits, serves_paths=False, presigns=False)

    async def put(self, new: NewObject, *, give_up: GiveUp | None = None) -> StoredObject:
        plain = new.spooled
        async with self._receive(self._codec.encode(_chunks(plain.path), new)) as encoded:
            try:
                stored = await self._inner.put(replace(new, spooled=encoded), give_up=give_up)
            except ObjectExists:
                # A codec may give other bytes each time, so only what they mean says whether they are the same.
                if new.move is None or not await self._has_same(new):
                    raise
                stored = await self._existing(new)
        return replace(stored, size_bytes=plain.size_bytes, sha256=plain.sha256)

    async def open(self, locator: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        validated_range(start, end)
        async with aclosing(self._codec.decode(self._encoded(locator), start, end)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def stat(self, locator: str) -> ObjectState:
        found = await self._inner.stat(locator)
        return replace(found, size_bytes=await self._plain_size(locator, found.size_bytes))

    async def access(
        self,
        locator: str,
        *,
        filename: str,  # noqa: ARG002
        content_type: str,  # noqa: ARG002
        expected: Expected | None = None,
    ) -> Access:
        found = await self.stat(locator)
        if expected is None:
            return Stream(found.size_bytes, partial(self.open, locator))
        await self._check(locator, found, expected)
        return Stream(found.size_bytes, partial(self._open_checked, locator, expected))

    async def find_sizes(self, locators: Sequence[str]) -> dict[str, int | AppError]:
        found = await self._inner.find_sizes(locators)
        return {
            locator: await self._plain_size(locator, size) if isinstance(size, int) else size
            for locator, size in found.items()
        }

    def iterate(self, *, after: str | None = None, conversation_id: str | None = None) -> AsyncIterator[ListedObject]:
        return self._with_plain_sizes(self._inner.iterate(after=after, conversation_id=conversation_id))

    def iterate_quarantine(self) -> AsyncIterator[ListedObject]:
        return self._with_plain_sizes(self._inner.iterate_quarantine())

    async def _with_plain_sizes(self, items: AsyncIterator[ListedObject]) -> AsyncIterator[ListedObject]:
        async for item in items:
            yield replace(item, size_bytes=await self._plain_size(item.locator, item.size_bytes))

    async def _plain_size(self, locator: str, size_bytes: int) -> int:
        return await self._codec.plain_size(self._encoded(locator), size_bytes)

    def _encoded(self, locator: str) -> EncodedObject:
        return EncodedObject(self._inner, locator)

    async def _has_same(self, new: NewObject) -> bool:
        locator = self.locator(new.kind, new.key)
        if (await self.stat(locator)).size_bytes != new.spooled.size_bytes:
            return False
        return await sha256_of(self, locator) == new.spooled.sha256

    async def _existing(self, new: NewObject) -> StoredObject:
        locator, spooled = self.locator(new.kind, new.key), new.spooled
        version = (await self._inner.stat(locator)).version
        return StoredObject(
            locator,
            self.name,
            new.key,
            new.kind,
            spooled.size_bytes,
            spooled.sha256,
            new.content_type,
            version=version,
        )

    async def _check(self, locator: str, found: ObjectState, expected: Expected) -> None:
        """Compare sizes; hash what was not hashed in this state, unless it is so large that a reader would notice."""
        if found.size_bytes != expected.size_bytes:
            raise corrupt(locator, f"it has {found.size_bytes} bytes instead of {expected.size_bytes}")
        trusted = expected.version == found.version or found.size_bytes > ALWAYS_HASHED_BYTES
        if trusted or self._proven.knows(locator, found.version, expected.sha256):
            return
        if await sha256_of(self, locator) != expected.sha256:
            raise corrupt(locator, "its SHA-256 differs")
        self._proven.add(locator, found.version, expected.sha256)

    def _open_checked(
        self, locator: str, expected: Expected, start: int, end: int | None
    ) -> AsyncGenerator[bytes, None]:
        chunks = self.open(locator, start, end)
        whole = start == 0 and (end is None or end >= expected.size_bytes)
        return hashed(chunks, locator, expected) if whole else chunks


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with disk_errors(path):
        async with await anyio.open_file(path, "rb") as file:
            while chunk := await file.read(CHUNK_BYTES):
                yield chunk
