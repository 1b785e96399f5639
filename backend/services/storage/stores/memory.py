"""MemoryStore: an ObjectStore without disk or network, for tests and demonstrations. Can be told to fail."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from datetime import UTC, datetime
from uuid import uuid4

import anyio

from backend.errors import AppError, InvalidInput, ObjectCorrupt, ObjectExists, ObjectMissing, StorageError
from backend.services.storage.files import CHUNK_BYTES
from backend.services.storage.keys import distinct_key, validated_key
from backend.services.storage.port import validated_range
from backend.services.storage.values import (
    Expected,
    GiveUp,
    ListedObject,
    NewObject,
    ObjectKind,
    ObjectState,
    PresignedUrl,
    StoredObject,
    StoreTraits,
    UnfinishedMultipart,
)


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
        self.saved_at: dict[str, datetime] = {}
        self.failure: StorageError | None = None
        self.calls = 0

    @property
    def name(self) -> str:
        return self._name

    @property
    def traits(self) -> StoreTraits:
        return StoreTraits(presigns=True)

    def locator(self, kind: ObjectKind, key: str) -> str:
        return f"{self._name}://{kind}/{key}"

    def key(self, locator: str) -> str:
        return locator.removeprefix(f"{self._name}://").partition("/")[2]

    def owns(self, locator: str) -> bool:
        return locator.startswith(f"{self._name}://")

    async def check(self, *, write: bool = True) -> None:  # noqa: ARG002  a dict that reads can also write
        self._answer()

    async def put(self, new: NewObject, *, give_up: GiveUp | None = None) -> StoredObject:  # noqa: ARG002
        self._answer()
        locator, source = self.locator(new.kind, validated_key(new.key)), new.spooled
        data = await anyio.Path(source.path).read_bytes()
        if locator in self.objects and not (new.move and self.objects[locator] == data):
            raise ObjectExists(f"{locator} exists already.")
        self.objects[locator] = data
        self.saved_at[locator] = datetime.now(UTC)
        return StoredObject(locator, self._name, new.key, new.kind, source.size_bytes, source.sha256, new.content_type)

    async def open(self, locator: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        validated_range(start, end)
        data = self._find(locator)[start:end]
        for offset in range(0, len(data), CHUNK_BYTES):
            yield data[offset : offset + CHUNK_BYTES]

    async def stat(self, locator: str) -> ObjectState:
        data = self._find(locator)
        return ObjectState(len(data), hashlib.sha256(data).hexdigest())

    async def delete(self, locator: str) -> None:
        self._answer()
        self.objects.pop(locator, None)

    async def access(
        self,
        locator: str,
        *,
        filename: str,  # noqa: ARG002
        content_type: str,  # noqa: ARG002
        expected: Expected | None = None,
    ) -> PresignedUrl:
        data = self._find(locator)
        found = len(data), hashlib.sha256(data).hexdigest()
        if expected is not None and found != (expected.size_bytes, expected.sha256):
            raise ObjectCorrupt(f"{locator} is not what was saved.")
        return PresignedUrl(locator, expires_s=900)

    async def find_sizes(self, locators: Sequence[str]) -> dict[str, int | AppError]:
        self._answer()
        return {locator: len(self.objects[locator]) for locator in locators if locator in self.objects}

    async def iterate(
        self, *, after: str | None = None, conversation_id: str | None = None
    ) -> AsyncIterator[ListedObject]:
        for item in self._list(self._name):
            wanted = conversation_id is None or item.key.startswith(f"{conversation_id}/")
            if wanted and item.locator > (after or ""):
                yield item

    async def move_to_quarantine(self, locator: str) -> str:
        data = self._find(locator)
        target = f"{self._name}-quarantine{locator.removeprefix(self._name)}"
        while target in self.objects:
            target = distinct_key(target, uuid4().hex[:6])
        self.objects[target], self.saved_at[target] = data, datetime.now(UTC)
        del self.objects[locator]
        return target

    async def iterate_quarantine(self) -> AsyncIterator[ListedObject]:
        for item in self._list(f"{self._name}-quarantine"):
            yield item

    async def delete_quarantined(self, locator: str) -> None:
        if not locator.startswith(f"{self._name}-quarantine://"):
            raise InvalidInput(f"{locator[:200]!r} is not in the quarantine.")
        self._answer()
        self.objects.pop(locator, None)

    async def iterate_uploads(self) -> AsyncIterator[UnfinishedMultipart]:
        self._answer()
        return
        yield  # an upload in parts needs a store that takes parts

    async def abort_upload(self, upload: UnfinishedMultipart) -> None:
        raise InvalidInput(f"{upload.locator[:200]!r} is no upload in parts.")

    async def close(self) -> None:
        return None

    def _list(self, scheme: str) -> list[ListedObject]:
        self._answer()
        held = sorted(locator for locator in self.objects if locator.startswith(f"{scheme}://"))
        never = datetime.min.replace(tzinfo=UTC)
        return [
            ListedObject(item, item.split("/", 3)[3], len(self.objects[item]), self.saved_at.get(item, never))
            for item in held
        ]

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
