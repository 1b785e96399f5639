"""Mover: an object's way from the local folder to the primary store, in steps that may be repeated. Knows no rows."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from backend.concurrency.lanes import ThreadLane
from backend.errors import InvalidInput, ObjectExists, ObjectMissing, StorageError
from backend.services.storage.files import disk_errors
from backend.services.storage.integrity import corrupt
from backend.services.storage.keys import distinct_key
from backend.services.storage.placement.breaker import Breaker
from backend.services.storage.placement.stores import Stores
from backend.services.storage.port import ObjectStore
from backend.services.storage.values import ListedObject, LocalFile, Move, SpooledFile, StoredObject

State = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class VerifiedFile:
    """A local object whose bytes were read a moment ago and found to be those that were saved.

    Attributes:
        state: inode, size and modification time of before they were read.
    """

    spooled: SpooledFile
    state: State


class Mover:
    """Copies local objects to the primary store.

    Args:
        stores: which one is primary, and which one local.
        breaker: the primary's.
        disk: threads for reading files.
    """

    def __init__(self, stores: Stores, breaker: Breaker, disk: ThreadLane) -> None:
        self._stores = stores
        self._breaker = breaker
        self._disk = disk

    @property
    def has_target(self) -> bool:
        """Whether local objects belong elsewhere; then the primary store is where."""
        return self._stores.primary.name != "local"

    @property
    def trouble(self) -> StorageError | None:
        """Why the primary store is not to be tried now; None: it may be."""
        error = self._breaker.error
        # A copy: an exception that is raised many times would collect all their tracebacks.
        return error and copy(error).with_traceback(None)

    async def verified_file(self, stored: StoredObject) -> VerifiedFile:
        """Read a local object and hold its bytes against what is known of it.

        Raises:
            ObjectCorrupt: they are not those that were saved.
            ObjectMissing: it is not on this machine's disk.
            StorageError: the disk does not give it.
            InvalidInput: its locator leads nowhere.
        """
        path = await self._path(stored.locator)
        state, sha256 = await self._disk.run(_read, path)
        if state[1] != stored.size_bytes:
            raise corrupt(stored.locator, f"it has {state[1]} bytes instead of {stored.size_bytes}")
        if sha256 != stored.sha256:
            raise corrupt(stored.locator, "its SHA-256 is another one")
        return VerifiedFile(SpooledFile(path, stored.size_bytes, stored.sha256), state)

    async def is_unchanged(self, file: VerifiedFile) -> bool:
        """Whether nobody wrote to the file since; deleting it is no change of what was read."""
        try:
            return await self._disk.run(_state, file.spooled.path) == file.state
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
        taken = ObjectExists(f"{stored.key} is taken in {primary.name} by other bytes.")
        # The second name is the same in every attempt, so that a later one finds what an earlier one left.
        for key in (stored.key, distinct_key(stored.key, stored.sha256[:12])):
            try:
                moved = await primary.put(
                    file.spooled,
                    kind=stored.kind,
                    key=key,
                    content_type=stored.content_type,
                    metadata=headers,
                    give_up=lambda: self.trouble,
                    move=Move(max_bytes_per_s),
                )
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
        """List every object in the local folder. Errors as in `verified_file`."""
        async for item in self._local.iterate():
            yield item

    async def hash_local(self, locator: str) -> str:
        """Return the SHA-256 of a local object. Errors as in `verified_file`."""
        return await self._disk.run(_hash, await self._path(locator))

    @property
    def _local(self) -> ObjectStore:
        return next(store for store in self._stores.all if store.name == "local")

    async def _path(self, locator: str) -> Path:
        found = await self._local.access(locator, filename="", content_type="")
        if not isinstance(found, LocalFile):
            raise InvalidInput(f"{locator[:200]!r} is not on this disk.")
        return found.path


def _state(path: Path) -> State:
    with disk_errors(path):
        found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> tuple[State, str]:
    return _state(path), _hash(path)


def _hash(path: Path) -> str:
    with disk_errors(path), path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
