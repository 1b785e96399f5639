"""Restore: the rows of one conversation, written again from its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.exc import DBAPIError

from backend.concurrency.lanes import ThreadLane
from backend.database import reconciliation
from backend.database.models import StoredObjectRow
from backend.database.objects import row_of
from backend.database.reconciliation import LOST
from backend.database.session import Database
from backend.domain.manifest import Manifest, ManifestObject, parse_manifest
from backend.errors import InvalidInput, NewerManifest, StorageError
from backend.services.reconciliation.reading import read_manifest_bytes
from backend.services.storage import ListedObject, ObjectStore, StoredObject, Stores
from backend.services.storage.keys import PREFIXES, distinct_key, parse_key
from backend.services.storage.values import ObjectKind

_PARSING = ThreadLane("manifests", 1)


@dataclass(frozen=True, slots=True)
class FoundManifest:
    """A manifest, where it is, and what identifies its bytes."""

    manifest: Manifest
    store: ObjectStore
    locator: str
    size_bytes: int
    sha256: str

    @property
    def rank(self) -> tuple[bool, datetime]:
        """Of several manifests of one conversation the one with the highest rank counts: completed, then latest."""
        ended_at = self.manifest.completed_at or self.manifest.uploaded_at
        return self.manifest.status == "completed", ended_at

    def names(self, key: str) -> bool:
        """Whether an object of this key is the manifest's, also where it moved under its second name."""
        return any(key in possible_keys(item) for item in self.manifest.objects)


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of a manifest.

    Attributes:
        written: False: the conversation is there already, or is being deleted.
        missing: keys of objects that no store has; their rows say so.
    """

    conversation_id: str
    written: bool
    missing: tuple[str, ...] = ()


class Restorer:
    """
    Args:
        apply: False: find out what would be written, and write nothing.
    """

    def __init__(self, stores: Stores, database: Database, *, apply: bool) -> None:
        self._stores = stores
        self._database = database
        self._apply = apply
        self._off: dict[str, StorageError] = {}

    async def read(self, store: ObjectStore, locator: str) -> FoundManifest:
        """Read and understand a manifest.

        Raises:
            InvalidInput: it is not a manifest.
            NewerManifest: a newer Aperta wrote it.
            StorageError: it cannot be read.
        """
        data = await read_manifest_bytes(store, locator)
        manifest = await _PARSING.run(parse_manifest, data)
        return FoundManifest(manifest, store, locator, len(data), hashlib.sha256(data).hexdigest())

    async def find(self, conversation_id: str) -> FoundManifest | None:
        """The manifest of a conversation, wherever it is; what only looks like one is passed over.

        Raises:
            NewerManifest: there is one that cannot be judged.
            StorageError: a store cannot be asked.
        """
        found: list[FoundManifest] = []
        for store in self._stores.all:
            async for item in manifests_in(store, conversation_id):
                try:
                    read = await self.read(store, item.locator)
                except NewerManifest:
                    raise
                except InvalidInput:
                    continue
                if read.manifest.conversation_id == conversation_id:
                    found.append(read)
        return max(found, key=lambda item: item.rank, default=None)

    async def restore(self, found: FoundManifest) -> Restored:
        """Write the rows, unless the conversation is there.

        Raises:
            InvalidInput: the database refuses a value.
            StorageError: a store cannot be asked, so the place of an object is unknown.
            DatabaseUnavailable
        """
        manifest = found.manifest
        at = manifest.completed_at or manifest.uploaded_at
        located = [(item, await self._locate(item)) for item in manifest.objects]
        stored = [self._stored(item, place) for item, place in located]
        stored.append(_stored_manifest(found))
        rows = [row_of(item, manifest.conversation_id, at) for item in stored]
        missing = tuple(item.key for item, place in located if place is None)
        written = not self._apply or await self._insert(manifest, rows)
        return Restored(manifest.conversation_id, written, missing)

    async def _insert(self, manifest: Manifest, rows: list[StoredObjectRow]) -> bool:
        try:
            async with self._database.transaction() as session:
                return await reconciliation.insert_conversation(session, manifest, rows)
        except DBAPIError as error:
            raise InvalidInput(f"The database refuses {manifest.conversation_id}: {error.orig}.") from error

    async def _locate(self, item: ManifestObject) -> tuple[ObjectStore, str] | None:
        """The first place, beginning with the primary store, that has an object of this key and size."""
        for store in self._stores.all:
            if store.name in self._off:
                continue
            locators = [store.locator(item.kind, key) for key in possible_keys(item)]
            try:
                sizes = await store.find_sizes(locators)
            except StorageError as error:
                self._off[store.name] = error  # each question might wait for its timeouts
                continue
            for locator in locators:
                if sizes.get(locator) == item.size_bytes:
                    return store, locator
        if self._off:
            raise next(iter(self._off.values()))
        return None

    def _stored(self, item: ManifestObject, place: tuple[ObjectStore, str] | None) -> StoredObject:
        primary = self._stores.primary
        store, locator = place or (primary, primary.locator(item.kind, item.key))
        parked = None if place else lost("the manifest names it, and no store has it")
        return StoredObject(
            locator, store.name, item.key, item.kind, item.size_bytes, item.sha256, item.content_type, parked=parked
        )


def lost(reason: str) -> str:
    """Return what `parked` says of an object that is gone or damaged."""
    return f"{LOST}{reason} ({datetime.now(UTC):%Y-%m-%d})"


def possible_keys(item: ManifestObject) -> tuple[str, str]:
    """Return the key of an object, and the one that a drain gives it when that is taken."""
    return item.key, distinct_key(item.key, item.sha256[:12])


def kind_of(store: ObjectStore, item: ListedObject) -> ObjectKind:
    """Return what an object is: its store may say so by the place, else its name does."""
    fitting = [kind for kind in PREFIXES if store.locator(kind, item.key) == item.locator]
    parsed = parse_key(item.key)
    return fitting[0] if len(fitting) == 1 or parsed is None else parsed[1]


async def manifests_in(store: ObjectStore, conversation_id: str) -> AsyncIterator[ListedObject]:
    """List what may be manifests of a conversation."""
    async for item in store.iterate(conversation_id=conversation_id):
        if kind_of(store, item) == "metadata":
            yield item


def _stored_manifest(found: FoundManifest) -> StoredObject:
    store, key = found.store.name, found.store.key(found.locator)
    return StoredObject(found.locator, store, key, "metadata", found.size_bytes, found.sha256, "application/json")
