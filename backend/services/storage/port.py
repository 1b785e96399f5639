"""The words of the storage layer: the `ObjectStore` port and the values that pass through it. No I/O here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Protocol

from backend.errors import AppError, InvalidInput
from backend.services.storage.values import (
    Access,
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
    UploadedPart,
)


class DirectUploads(Protocol):
    """Uploads that clients send in parts straight to a store, by links that carry the permission to do so.

    What arrives is the client's own bytes, which no wrapper around the store has seen: so it is read here, and saved
    from there like any other upload. All methods may raise StorageMisconfigured or StorageUnavailable.
    """

    async def begin(self, key: str, content_type: str) -> str:
        """Return the store's id of a new upload."""
        ...

    async def sign(self, key: str, upload_id: str, sizes_bytes: Sequence[int], expires_s: int) -> list[PresignedUrl]:
        """Return links to PUT parts 1, 2 … of exactly these sizes to."""
        ...

    async def list_parts(self, key: str, upload_id: str) -> list[UploadedPart]:
        """Return what has arrived, in order.

        Raises:
            ObjectMissing: there is no such upload, or it is completed.
        """
        ...

    async def complete(self, key: str, upload_id: str, parts: Sequence[UploadedPart]) -> None:
        """Make one object of the parts.

        Raises:
            ObjectMissing: as above.
        """
        ...

    async def get_size(self, key: str) -> int:
        """Return the size in bytes of a completed upload.

        Raises:
            ObjectMissing: it is not completed.
        """
        ...

    def open(self, key: str) -> AsyncGenerator[bytes, None]:
        """Stream a completed upload. Errors as in `get_size`, at the first step of the iteration."""
        ...

    async def abort(self, key: str, upload_id: str) -> None:
        """Delete the parts, or the object that they became."""
        ...

    async def close(self) -> None:
        """Free connections."""
        ...


class StoreMaintenance(Protocol):
    """What a store offers for comparing it with the rows. Sizes are those of the bytes that `open` gives, which may
    differ from what the store keeps. Errors as for `ObjectStore`."""

    async def find_sizes(self, locators: Sequence[str]) -> dict[str, int | AppError]:
        """Return the size in bytes of every object, or why that one cannot be looked at; missing ones are left out."""
        ...

    def iterate(self, *, after: str | None = None, conversation_id: str | None = None) -> AsyncIterator[ListedObject]:
        """List all objects, or one conversation's, in an order that stays the same.

        Args:
            after: a locator; the listing begins behind it.
            conversation_id: list only this conversation's objects.
        """
        ...

    async def move_to_quarantine(self, locator: str) -> str:
        """Move an object out of every listing but the quarantine's, and return its new locator. Nothing is overwritten.

        Raises:
            ObjectMissing: there is no such object.
        """
        ...

    def iterate_quarantine(self) -> AsyncIterator[ListedObject]:
        """List the quarantined objects; `modified_at` is when they were moved."""
        ...

    async def delete_quarantined(self, locator: str) -> None:
        """Delete a quarantined object for good; a missing one is no error.

        Raises:
            InvalidInput: it is not in the quarantine.
        """
        ...

    def iterate_uploads(self) -> AsyncIterator[UnfinishedMultipart]:
        """List uploads in parts that are neither completed nor aborted."""
        ...

    async def abort_upload(self, upload: UnfinishedMultipart) -> None:
        """Delete the parts of an upload; a missing one is no error."""
        ...


class ObjectStore(StoreMaintenance, Protocol):
    """Keeps write-once objects. Every adapter passes the suite in tests/contracts/store_contract.py.

    All methods but `owns`, `locator` and `key` may raise StorageMisconfigured or StorageUnavailable.
    """

    @property
    def name(self) -> str:
        """What the store is called in `StoredObject.store`, logs and storage-info."""
        ...

    @property
    def traits(self) -> StoreTraits:
        """What the store can do."""
        ...

    def owns(self, locator: str) -> bool:
        """Whether locators of this form belong to this store. Says nothing about existence."""
        ...

    def locator(self, kind: ObjectKind, key: str) -> str:
        """The locator that an object of this kind has under this key, whether or not it exists."""
        ...

    def key(self, locator: str) -> str:
        """The key in a locator of this store, the same in every store.

        Raises:
            InvalidInput: the locator is not this store's.
        """
        ...

    async def check(self, *, write: bool = True) -> None:
        """Return when the store can be used now.

        Args:
            write: also write, read back and delete a small object; a store that only answers may still refuse writes.

        Raises:
            StorageError: it cannot, and why.
        """
        ...

    async def put(self, new: NewObject, *, give_up: GiveUp | None = None) -> StoredObject:
        """Store an object under a new key. The spool file stays the caller's, whether or not that succeeds.

        Args:
            new: what to store.
            give_up: asked by stores across a network before they begin and while they send.

        Raises:
            ObjectExists: the key is taken; nothing was written.
            ObjectRefused: the store takes others, not this one.
            StorageError: not stored.
        """
        ...

    def open(self, locator: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """Stream bytes `start` up to, not including, `end`; a range may reach beyond the end of the object.

        Raises:
            ObjectMissing: at the first step of the iteration.
        """
        ...

    async def stat(self, locator: str) -> ObjectState:
        """Return the object's size and version.

        Raises:
            ObjectMissing: there is no such object.
        """
        ...

    async def delete(self, locator: str) -> None:
        """Remove the object; a missing one is no error."""
        ...

    async def access(
        self, locator: str, *, filename: str, content_type: str, expected: Expected | None = None
    ) -> Access:
        """Say how a client may be given the bytes, under this file name and content type.

        Args:
            expected: what must be there; checked as far as the store can without reading everything each time.

        Raises:
            ObjectMissing: there is no such object.
            ObjectCorrupt: there is, and it is not what is expected.
        """
        ...

    async def close(self) -> None:
        """Free connections. The store is not used afterwards."""
        ...


def validated_range(start: int, end: int | None) -> None:
    """Do nothing for a range that makes sense.

    Raises:
        InvalidInput: it starts before 0 or ends before it starts.
    """
    if start < 0 or (end is not None and end < start):
        raise InvalidInput(f"Bytes {start} to {end} are not a range.")
