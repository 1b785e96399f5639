"""Codecs that change every byte, so that nothing which reads around a wrapper goes unnoticed."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing

from backend.errors import ObjectCorrupt
from backend.services.storage import ObjectStore
from backend.services.storage.placement.parts import WrapWithSpool
from backend.services.storage.spool.temporary import Spool
from backend.services.storage.stores.wrapper import Codec, EncodedObject, EncodedStore
from backend.services.storage.values import NewObject

SALT_BYTES = 8


class Flipped:
    """Every bit of every byte is flipped; the size stays."""

    async def encode(self, plain: AsyncIterable[bytes], new: NewObject) -> AsyncGenerator[bytes, None]:
        async for chunk in plain:
            yield flip(chunk, 0xFF)

    async def decode(self, encoded: EncodedObject, start: int, end: int | None) -> AsyncGenerator[bytes, None]:
        async with aclosing(encoded.open(start, end)) as chunks:
            async for chunk in chunks:
                yield flip(chunk, 0xFF)

    async def plain_size(self, encoded: EncodedObject, size_bytes: int) -> int:
        return size_bytes


class Salted:
    """Random bytes in front, and all that follows changed by them: the size differs, and no two encodings are the same,
    as with encryption."""

    async def encode(self, plain: AsyncIterable[bytes], new: NewObject) -> AsyncGenerator[bytes, None]:
        salt = new_salt()
        yield salt
        async for chunk in plain:
            yield flip(chunk, salt[0])

    async def decode(self, encoded: EncodedObject, start: int, end: int | None) -> AsyncGenerator[bytes, None]:
        salt = b"".join([chunk async for chunk in encoded.open(0, SALT_BYTES)])
        if len(salt) < SALT_BYTES:
            raise ObjectCorrupt(f"{encoded.locator} has no salt.")
        until = None if end is None else end + SALT_BYTES
        async with aclosing(encoded.open(start + SALT_BYTES, until)) as chunks:
            async for chunk in chunks:
                yield flip(chunk, salt[0])

    async def plain_size(self, encoded: EncodedObject, size_bytes: int) -> int:
        return max(0, size_bytes - SALT_BYTES)


def salted(data: bytes) -> bytes:
    """What `Salted` may store for this."""
    salt = new_salt()
    return salt + flip(data, salt[0])


def unsalted(data: bytes) -> bytes:
    """What `Salted` gives for this."""
    return flip(data[SALT_BYTES:], data[0])


def new_salt() -> bytes:
    """Begins with one of two bytes, neither of which leaves anything as it is."""
    return random.choice((b"\x80", b"\xa5")) + os.urandom(SALT_BYTES - 1)


def flip(data: bytes, mask: int) -> bytes:
    return data.translate(bytes(value ^ mask for value in range(256)))


def wrap_in(codec: Codec) -> WrapWithSpool:
    """Put a codec around every configured store."""

    def wrap(store: ObjectStore, spool: Spool) -> ObjectStore:
        return EncodedStore(store, codec, spool.receive)

    return wrap
