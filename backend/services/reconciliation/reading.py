"""Reading whole objects to judge them: their hash, and manifests. Never fast enough to be in somebody's way."""

from __future__ import annotations

import hashlib

from backend.concurrency.lanes import ThreadLane
from backend.concurrency.rate import Pace
from backend.errors import InvalidInput
from backend.services.storage import ObjectStore

MAX_MANIFEST_BYTES = 256 * 1024 * 1024
"""A day of speech with a time for every word takes a tenth of it."""

INLINE_BYTES = 64 * 1024

_HASHING = ThreadLane("custody-hash", 2)


async def sha256_of(store: ObjectStore, locator: str, pace: Pace | None = None) -> str:
    """Return the SHA-256 of an object, read as fast as the pace allows.

    Raises:
        ObjectMissing: there is no such object.
        StorageError: it cannot be read.
    """
    digest = hashlib.sha256()
    async for chunk in store.open(locator):
        if pace is not None:
            await pace.wait(len(chunk))
        if len(chunk) < INLINE_BYTES:
            digest.update(chunk)  # a hop to a thread would take longer
        else:
            await _HASHING.run(digest.update, chunk)
    return digest.hexdigest()


async def read_manifest_bytes(store: ObjectStore, locator: str) -> bytes:
    """Return the bytes of an object that should be a manifest.

    Raises:
        InvalidInput: it is too large for one.
        StorageError: it cannot be read.
    """
    data = bytearray()
    async for chunk in store.open(locator):
        data += chunk
        if len(data) > MAX_MANIFEST_BYTES:
            raise InvalidInput(f"{locator} has more than {MAX_MANIFEST_BYTES} bytes; that is no manifest.")
    return bytes(data)
