"""Emptying the quarantine: the only place where reconciliation deletes for good what may have been a recording."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from backend.domain.lifecycle import Retention
from backend.errors import StorageError
from backend.services.reconciliation.findings import Unchecked, UncheckedTally
from backend.services.storage import Stores


@dataclass(frozen=True, slots=True)
class EmptyingReport:
    """What was deleted, or, if it was dry, would be."""

    applied: bool
    objects: int
    bytes: int
    unchecked: tuple[Unchecked, ...]

    @property
    def exit_code(self) -> int:
        """0: done; 2: a store could not be asked."""
        return 2 if self.unchecked else 0


async def empty_quarantine(stores: Stores, *, older_than_s: float, apply: bool) -> EmptyingReport:
    """Delete what has been in the quarantine for at least `older_than_s`."""
    retention, now = Retention(older_than_s), datetime.now(UTC)
    count = size_bytes = 0
    unchecked = UncheckedTally()
    for store in stores.all:
        try:
            async for item in store.iterate_quarantine():
                if not retention.expired(item.modified_at, now):
                    continue
                if apply:
                    await store.delete_quarantined(item.locator)
                count += 1
                size_bytes += item.size_bytes
        except StorageError as error:
            unchecked.add(store.name, 0, error)
    return EmptyingReport(apply, count, size_bytes, unchecked.all)
