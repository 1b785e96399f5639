"""Mover: an object's way from the local folder to the primary store, in steps that may be repeated. Knows no rows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from backend.concurrency.lanes import ThreadLane
from backend.errors import InvalidInput, ObjectExists, ObjectMissing, StorageError
from backend.services.storage.files import sha256_of_file
from backend.services.storage.integrity import corrupt, sha256_of
from backend.services.storage.keys import distinct_key
from backend.services.storage.placement.breaker import Breaker
from backend.services.storage.placement.stores import Stores
from backend.services.storage.port import ObjectStore
from backend.services.storage.spool.temporary import Spool
from backend.services.storage.values import ListedObject, LocalFile, Move, NewObject, SpooledFile, StoredObject


@dataclass(frozen=True, slots=True)
class VerifiedFile:
    """The bytes of a local object, read a moment ago and found to be those that were saved.

    Attributes:
        spooled: the object's own file, or a copy.
        version: the object's, of before its bytes were read.
    """

    spooled: SpooledFile
    locator: str
    version: str


class Mover:
    """Copies local objects to the primary store.

    Args:
        stores: which one is primary, and which ones are local.
        breaker: the primary's.
        spool: for objects that are not files.
        disk: threads for reading files.
    """

    def __init__(self, stores: Stores, breaker: Breaker, spool: Spool, disk: ThreadLane) -> None:
        self._stores = stores
        self._breaker = breaker
        self._spool = spool
        self._disk = disk

    @property
    def has_target(self) -> bool:
        """Whether local objects belong elsewhere; then the primary store is where."""
        return not self._stores.primary.traits.is_local

    @property
    def sources(self) -> frozenset[str]:
        """The names, in rows, of the stores whose objects are on this machine's disk."""
        return frozenset(store.name for store in self._stores.local)

    @property
    def trouble(self) -> StorageError | None:
        """Why the primary store is not to be tried now; None: it may be."""
        return self._breaker.trouble

    def will_move(self, store_name: str) -> bool:
        """Whether objects of a store belong elsewhere."""
        return self.has_target and store_name in self.sources

    @asynccontextmanager
    async def verified_file(self, stored: StoredObject) -> AsyncGenerator[VerifiedFile, None]:
        """Read a local object and compare its bytes with what was saved; the file lives as long as the context.

        Raises:
            ObjectCorrupt: they are not those that were saved.
            ObjectMissing: it is not on this machine's disk.
            StorageError: the disk does not give it.
            InvalidInput: its locator leads nowhere.
        """
        store = self._get_local(stored.locator)
        found = await store.stat(stored.locator)
        if found.size_bytes != stored.size_bytes:
            raise corrupt(stored.locator, f"it has {found.size_bytes} bytes instead of {stored.size_bytes}")
        async with self._as_file(store, stored.locator) as spooled:
            if spooled.sha256 != stored.sha256:
                raise corrupt(stored.locator, "its SHA-256 differs")
            yield VerifiedFile(spooled, stored.locator, found.version)

    async def is_unchanged(self, file: VerifiedFile) -> bool:
        """Whether the object still has the bytes that were read. Deleting it changes none of them."""
        try:
            return (await self._get_local(file.locator).stat(file.locator)).version == file.version
        except ObjectMissing:
            return True

    async def copy(
        self, file: VerifiedFile, stored: StoredObject, *, at: datetime, max_bytes_per_s: int = 0
    ) -> StoredObject:
        """Copy an object to the primary store. A copy of the same bytes that is there already is taken over.

        Args:
            file: what `verified_file` gave.
            stored: the object.
            at: when it was saved first, for the copy's headers.
            max_bytes_per_s: the rate that a large object keeps to; 0: none.

        Returns:
            The copy; complete, and looked at in its store.

        Raises:
            ObjectRefused, ObjectExists: this one object cannot go there.
            StorageError: the primary store is in trouble, or the file went away.
        """
        primary, conversation_id = self._stores.primary, stored.key.partition("/")[0]
        headers = {"conversation_id": conversation_id, "upload_time": at}
        new = NewObject(file.spooled, stored.kind, stored.key, stored.content_type, headers, move=Move(max_bytes_per_s))
        taken = ObjectExists(f"{stored.key} is taken in {primary.name} by other bytes.")
        # The second name is the same in every attempt, so that a later one finds what an earlier one left.
        for key in (stored.key, distinct_key(stored.key, stored.sha256[:12])):
            try:
                moved = await primary.put(replace(new, key=key), give_up=lambda: self.trouble)
            except ObjectExists as error:
                taken = error
            except StorageError as error:
                self._breaker.failed(error)
                raise
            else:
                self._breaker.succeeded()
                return moved
        raise taken

    async def iterate_local(self) -> AsyncIterator[ListedObject]:
        """List every object on this machine's disk. Errors as in `verified_file`."""
        for store in self._stores.local:
            async for item in store.iterate():
                yield item

    async def hash_local(self, locator: str) -> str:
        """Return the SHA-256 of a local object. Errors as in `verified_file`."""
        return await sha256_of(self._get_local(locator), locator)

    @asynccontextmanager
    async def _as_file(self, store: ObjectStore, locator: str) -> AsyncGenerator[SpooledFile, None]:
        if store.traits.serves_paths:
            found = await store.access(locator, filename="", content_type="")
            if isinstance(found, LocalFile):
                size_bytes = (await store.stat(locator)).size_bytes
                yield SpooledFile(found.path, size_bytes, await self._disk.run(sha256_of_file, found.path))
                return
        async with aclosing(store.open(locator)) as chunks, self._spool.receive(chunks) as spooled:
            yield spooled

    def _get_local(self, locator: str) -> ObjectStore:
        store = self._stores.get_owner(locator)
        if not store.traits.is_local:
            raise InvalidInput(f"{locator[:200]!r} is not on this disk.")
        return store
