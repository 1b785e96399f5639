"""MemoryStore: an ObjectStore without disk or network, for tests and demonstrations. Can be told to fail."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

import anyio

from backend.errors import ObjectExists, ObjectMissing, StorageError
from backend.services.storage.base import Kind, PresignedUrl, SpooledFile, StoredObject
from backend.services.storage.disk import CHUNK_BYTES
from backend.services.storage.keys import validated_key
from backend.services.storage.ranges import validated_range


class MemoryStore:
    """Objects in a dict.

    Attributes:
        objects: locator → bytes; tests may look and write behind the store's back.
        failure: raised by every call while it is set.
        calls: how often the store was asked for anything, failures included.
    """

    def __init__(self, name: str = "memory") -> None:
        self._name = name
        self.objects: dict[str, bytes] = {}
        self.failure: StorageError | None = None
        self.calls = 0

    @property
    def name(self) -> str:
        return self._name

    def locator(self, kind: Kind, key: str) -> str:
        return f"{self._name}://{kind}/{key}"

    def owns(self, locator: str) -> bool:
        return locator.startswith(f"{self._name}://")

    async def check(self, *, write: bool = True) -> None:  # noqa: ARG002  a dict that reads can also write
        self._answer()

    async def put(
        self,
        spooled: SpooledFile,
        *,
        kind: Kind,
        key: str,
        content_type: str,
        metadata: Mapping[str, object],  # noqa: ARG002
    ) -> StoredObject:
        self._answer()
        locator = self.locator(kind, validated_key(key))
        data = await anyio.Path(spooled.path).read_bytes()
        if locator in self.objects:
            raise ObjectExists(f"{locator} exists already.")
        self.objects[locator] = data
        return StoredObject(locator, self._name, key, kind, spooled.size_bytes, spooled.sha256, content_type)

    async def open(self, locator: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        validated_range(start, end)
        data = self._find(locator)[start:end]
        for offset in range(0, len(data), CHUNK_BYTES):
            yield data[offset : offset + CHUNK_BYTES]

    async def get_size(self, locator: str) -> int:
        return len(self._find(locator))

    async def delete(self, locator: str) -> None:
        self._answer()
        self.objects.pop(locator, None)

    async def access(self, locator: str, *, filename: str, content_type: str) -> PresignedUrl:  # noqa: ARG002
        self._find(locator)
        return PresignedUrl(locator, expires_s=900)

    async def close(self) -> None:
        return None

    def _find(self, locator: str) -> bytes:
        self._answer()
        try:
            return self.objects[locator]
        except KeyError:
            raise ObjectMissing(f"{locator} is not in memory.") from None

    def _answer(self) -> None:
        self.calls += 1
        if self.failure is not None:
            raise self.failure
