"""Reading manifests, up to a size."""

from __future__ import annotations

from backend.errors import InvalidInput
from backend.services.storage import ObjectStore

MAX_MANIFEST_BYTES = 256 * 1024 * 1024
"""A day of speech with a time for every word takes a tenth of it."""


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
