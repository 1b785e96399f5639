"""Where a save goes: to the primary store while its breaker is closed, else to the fallback, which is then said."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import replace
from uuid import uuid4

from backend.errors import ObjectExists, ObjectRefused, StorageError, StorageUnavailable
from backend.services.storage.keys import distinct_key
from backend.services.storage.placement.breaker import Breaker
from backend.services.storage.placement.stores import Stores
from backend.services.storage.port import ObjectStore
from backend.services.storage.values import GiveUp, NewObject, StoredObject

logger = logging.getLogger(__name__)

_NAMES_TO_TRY = 8
_BYTES_PER_TIMEOUT = 60 * 1024 * 1024


class Placement:
    """Puts spooled files into stores, under keys that nothing else has.

    Args:
        stores: primary and fallback.
        breaker: the primary's.
        save_timeout_s: how long the primary may take for a small object; as long again for each 60 MiB.

    Attributes:
        failures: failed saves of the primary by kind of error.
        fallbacks: saves that went to the fallback.
    """

    def __init__(self, stores: Stores, breaker: Breaker, save_timeout_s: float) -> None:
        self._primary, self._fallback = stores.primary, stores.fallback
        self._breaker = breaker
        self._save_timeout_s = save_timeout_s
        self.failures: Counter[str] = Counter()
        self.fallbacks = 0

    async def put(self, new: NewObject) -> StoredObject:
        """Save, with a warning if that is not where it should be.

        Raises:
            StorageError: no store took it that may take it.
        """
        cause = self._breaker.error
        # A folder answers at once; only a store across a network is spared the question.
        if cause is None or self._primary.traits.is_local:
            begun = time.monotonic()
            give_up = self._give_up(new.spooled.size_bytes)
            try:
                stored = await _put_under_free_name(self._primary, new, give_up=give_up)
            except StorageError as error:
                cause = error
                await self._note(error, time.monotonic() - begun)
            else:
                self._breaker.succeeded()
                return stored
        self._breaker.ensure_watched()
        if self._fallback is None:
            raise self._breaker.dated(cause) from cause
        self.fallbacks += 1
        stored = await _put_under_free_name(self._fallback, new)
        return self._explained(stored, cause)

    async def _note(self, error: StorageError, took_s: float) -> None:
        self.failures[type(error).__name__] += 1
        if isinstance(error, ObjectRefused):
            await self._breaker.refused()
        else:
            self._breaker.failed(error, took_s)

    def _explained(self, stored: StoredObject, cause: StorageError) -> StoredObject:
        """Say why it is there; and if the primary takes everything but this object, that it stays there."""
        warning = f"{self._primary.name} could not be used, so this was saved as {stored.locator}. {cause}"
        logger.warning("%s", warning)
        alone = isinstance(cause, ObjectRefused) and self._breaker.error is None
        return replace(stored, warnings=(*stored.warnings, warning), parked=str(cause) if alone else None)

    def _give_up(self, size_bytes: int) -> GiveUp:
        """Ends a save that waits or crawls once another one finds the store dead, and in any case in time."""
        limit_s = self._save_timeout_s * (1 + size_bytes / _BYTES_PER_TIMEOUT)
        deadline = time.monotonic() + limit_s

        def give_up() -> StorageError | None:
            if (trouble := self._breaker.trouble) is not None:
                return trouble
            if time.monotonic() < deadline:
                return None
            return StorageUnavailable(
                f"{self._primary.name} took longer than {limit_s:.3g} s for {size_bytes} bytes. "
                "Is the line slow? S3_SAVE_TIMEOUT_S sets the limit."
            )

        return give_up


async def _put_under_free_name(store: ObjectStore, new: NewObject, *, give_up: GiveUp | None = None) -> StoredObject:
    """Objects are write-once, so a taken name gets a token added rather than an error to the caller."""
    named = new
    for _ in range(_NAMES_TO_TRY):
        try:
            return await store.put(named, give_up=give_up)
        except ObjectExists:
            named = replace(new, key=distinct_key(new.key, uuid4().hex[:6]))
    raise StorageError(f"No free name found for {new.key}.")
