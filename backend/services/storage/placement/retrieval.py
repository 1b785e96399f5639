"""Retrieval: from a locator to its bytes, and to their end. A store that is known to be silent is not waited for."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager

from backend.errors import StorageError, StorageMisconfigured, StorageUnavailable
from backend.services.storage.integrity import hashed
from backend.services.storage.placement.breaker import Breaker
from backend.services.storage.placement.stores import Stores
from backend.services.storage.port import ObjectStore
from backend.services.storage.values import Access, Expected

logger = logging.getLogger(__name__)


class Retrieval:
    """
    Args:
        stores: where objects are.
        breaker: the primary's.
    """

    def __init__(self, stores: Stores, breaker: Breaker) -> None:
        self._stores = stores
        self._breaker = breaker

    def open(
        self, locator: str, start: int = 0, end: int | None = None, *, expected: Expected | None = None
    ) -> AsyncGenerator[bytes, None]:
        """As `StorageService.open`."""
        chunks = self._stores.get_owner(locator).open(locator, start, end)
        return chunks if expected is None else hashed(chunks, locator, expected)

    async def access(
        self, locator: str, *, filename: str, content_type: str, expected: Expected | None = None
    ) -> Access:
        """As `StorageService.access`."""
        store = self._stores.get_owner(locator)
        try:
            with self._asking(store):
                return await store.access(locator, filename=filename, content_type=content_type, expected=expected)
        except (StorageUnavailable, StorageMisconfigured):
            found = await self._find_local_copy(store, locator, expected) if expected else None
            if found is None:
                raise
            logger.warning("%s cannot be reached; its local copy is served", locator)
            return found

    async def delete(self, locator: str) -> None:
        """As `StorageService.delete`."""
        store = self._stores.get_owner(locator)
        with self._asking(store):
            await store.delete(locator)

    async def delete_all(self, store_name: str, conversation_id: str) -> None:
        """As `StorageService.delete_all`."""
        store = self._stores.get(store_name)
        with self._asking(store):
            for item in [item async for item in store.iterate(conversation_id=conversation_id)]:
                await store.delete(item.locator)

    @contextmanager
    def _asking(self, store: ObjectStore) -> Iterator[None]:
        """Ask a store, unless it is a primary that is known to be silent: each reader would wait for its timeouts.

        Raises:
            StorageUnavailable: it does not answer; the error says when it is asked next.
        """
        is_primary, trouble = store is self._stores.primary, self._breaker.trouble
        if is_primary and isinstance(trouble, StorageUnavailable) and not trouble.answered:
            raise trouble
        try:
            yield
        except StorageUnavailable as error:
            if is_primary:
                error.retry_in_s = self._breaker.view().retry_in_s
            raise

    async def _find_local_copy(self, store: ObjectStore, locator: str, expected: Expected) -> Access | None:
        """The local object of the same key, if it has the same bytes: what is left of a drain, or waits for one."""
        key = store.key(locator)
        for local in self._stores.local:
            if local is store:
                continue
            try:
                place = local.locator("audio", key)
                return await local.access(place, filename="", content_type="", expected=expected)
            except StorageError:
                continue
        return None
