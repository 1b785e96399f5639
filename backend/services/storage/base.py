"""The words of the storage layer: the `ObjectStore` port and the values that pass through it. No I/O here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Kind = Literal["audio", "transcript", "metadata"]


@dataclass(frozen=True, slots=True)
class SpooledFile:
    """Bytes that are complete, hashed and fsynced on the local disk, waiting for their final place."""

    path: Path
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in its final place. The locator is the truth about where it is; `key` is the same in every store."""

    locator: str
    store: str
    key: str
    kind: Kind
    size_bytes: int
    sha256: str
    content_type: str
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.locator


@dataclass(frozen=True, slots=True)
class LocalFile:
    """The object may be served from this path."""

    path: Path


@dataclass(frozen=True, slots=True)
class PresignedUrl:
    """The object may be fetched from this URL until it expires. The URL is a secret: do not log it."""

    url: str = field(repr=False)
    expires_s: int


class ObjectStore(Protocol):
    """Keeps write-once objects. Every adapter passes the suite in tests/contracts/store_contract.py.

    All methods but `name` and `owns` may raise StorageMisconfigured or StorageUnavailable.
    """

    @property
    def name(self) -> str:
        """What the store is called in `StoredObject.store`, logs and storage-info: local, s3, memory."""
        ...

    def owns(self, locator: str) -> bool:
        """Whether locators of this form belong to this store. Says nothing about existence."""
        ...

    async def check(self, *, write: bool = True) -> None:
        """Return when the store can be used now.

        Args:
            write: also write, read back and delete a small object; a store that only answers may still refuse writes.

        Raises:
            StorageError: it cannot, and why.
        """
        ...

    async def put(
        self, spooled: SpooledFile, *, kind: Kind, key: str, content_type: str, metadata: Mapping[str, object]
    ) -> StoredObject:
        """Store the bytes under a new key; the spool file stays its owner's, whatever happens.

        Raises:
            ObjectExists: the key is taken; nothing was written.
            StorageError: not stored.
        """
        ...

    def open(self, locator: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Stream bytes `start` up to, not including, `end`; what lies past the end of the object is left out.

        Raises:
            ObjectMissing: at the first step of the iteration.
        """
        ...

    async def get_size(self, locator: str) -> int:
        """Return the object's size in bytes.

        Raises:
            ObjectMissing: there is no such object.
        """
        ...

    async def delete(self, locator: str) -> None:
        """Remove the object. One that is already gone is no error."""
        ...

    async def access(self, locator: str, *, filename: str, content_type: str) -> LocalFile | PresignedUrl:
        """Say how a client may be given the bytes, under this file name and content type.

        Raises:
            ObjectMissing: there is no such object.
        """
        ...

    async def close(self) -> None:
        """Free connections. The store is not used afterwards."""
        ...
