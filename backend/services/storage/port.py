"""The words of the storage layer: the `ObjectStore` port and the values that pass through it. No I/O here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Protocol

from backend.errors import AppError, InvalidInput
from backend.services.storage.values import (
    Expected,
    GiveUp,
    Kind,
    ListedObject,
    LocalFile,
    Move,
    PresignedUrl,
    SpooledFile,
    StoredObject,
    UnfinishedUpload,
    UploadedPart,
)


class DirectUploads(Protocol):
    """Uploads that clients send in parts straight to a store, by links that carry the permission to do so.

    All methods but `locator` may raise StorageMisconfigured or StorageUnavailable.
    """

    def locator(self, key: str) -> str:
        """Where the object will be."""
        ...

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

    async def abort(self, key: str, upload_id: str) -> None:
        """Delete the parts, or the object that they became."""
        ...

    async def close(self) -> None:
        """Free connections."""
        ...


class Upkeep(Protocol):
    """What a store offers to those who compare it with the rows. Errors as for `ObjectStore`."""

    async def find_sizes(self, locators: Sequence[str]) -> dict[str, int | AppError]:
        """Return the size in bytes of every object that is there, or why that one cannot be looked at.

        What is missing is left out.
        """
        ...

    def iterate(self, *, after: str | None = None, conversation_id: str | None = None) -> AsyncIterator[ListedObject]:
        """List all objects, or one conversation's, in an order that stays the same.

        Args:
            after: a locator; what comes up to it, and itself, is left out.
            conversation_id: nothing but this conversation's objects.
        """
        ...

    async def move_to_quarantine(self, locator: str) -> str:
        """Move an object to where nobody looks for it, and return where that is. Nothing is overwritten.

        Raises:
            ObjectMissing: there is no such object.
        """
        ...

    def iterate_quarantine(self) -> AsyncIterator[ListedObject]:
        """List what was moved there; `modified_at` is when."""
        ...

    async def delete_quarantined(self, locator: str) -> None:
        """Delete for good. One that is already gone is no error.

        Raises:
            InvalidInput: it is not in the quarantine.
        """
        ...

    def iterate_uploads(self) -> AsyncIterator[UnfinishedUpload]:
        """List uploads in parts that nobody completed or aborted yet."""
        ...

    async def abort_upload(self, upload: UnfinishedUpload) -> None:
        """Delete the parts of an upload. One that is already gone is no error."""
        ...


class ObjectStore(Upkeep, Protocol):
    """Keeps write-once objects. Every adapter passes the suite in tests/contracts/store_contract.py.

    All methods but `name`, `owns`, `locator` and `key` may raise StorageMisconfigured or StorageUnavailable.
    """

    @property
    def name(self) -> str:
        """What the store is called in `StoredObject.store`, logs and storage-info: local, s3, memory."""
        ...

    def owns(self, locator: str) -> bool:
        """Whether locators of this form belong to this store. Says nothing about existence."""
        ...

    def locator(self, kind: Kind, key: str) -> str:
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

    async def put(
        self,
        spooled: SpooledFile,
        *,
        kind: Kind,
        key: str,
        content_type: str,
        metadata: Mapping[str, object],
        give_up: GiveUp | None = None,
        move: Move | None = None,
    ) -> StoredObject:
        """Store the bytes under a new key; the spool file stays its owner's, whatever happens.

        Args:
            give_up: asked by stores across a network before they begin and while they send.
            move: the bytes come from another store. Then no save waits for this put, and an object of the same size
                and hash under the key is what an earlier attempt left, and is taken over.

        Raises:
            ObjectExists: the key is taken; nothing was written.
            ObjectRefused: the store takes others, not this one.
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

    async def access(
        self, locator: str, *, filename: str, content_type: str, expected: Expected | None = None
    ) -> LocalFile | PresignedUrl:
        """Say how a client may be given the bytes, under this file name and content type.

        Args:
            expected: what must be there; looked at as far as the store can without reading everything each time.

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
