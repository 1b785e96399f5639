"""The maintenance half of a store, done by a separate object: `MaintainedStore` passes each call on to that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from backend.errors import AppError
from backend.services.storage.port import StoreMaintenance
from backend.services.storage.values import ListedObject, UnfinishedMultipart


class MaintainedStore:
    """
    Args:
        maintenance: does the work.
    """

    def __init__(self, maintenance: StoreMaintenance) -> None:
        self._maintenance = maintenance

    async def find_sizes(self, locators: Sequence[str]) -> dict[str, int | AppError]:
        return await self._maintenance.find_sizes(locators)

    def iterate(self, *, after: str | None = None, conversation_id: str | None = None) -> AsyncIterator[ListedObject]:
        return self._maintenance.iterate(after=after, conversation_id=conversation_id)

    async def move_to_quarantine(self, locator: str) -> str:
        return await self._maintenance.move_to_quarantine(locator)

    def iterate_quarantine(self) -> AsyncIterator[ListedObject]:
        return self._maintenance.iterate_quarantine()

    async def delete_quarantined(self, locator: str) -> None:
        await self._maintenance.delete_quarantined(locator)

    def iterate_uploads(self) -> AsyncIterator[UnfinishedMultipart]:
        return self._maintenance.iterate_uploads()

    async def abort_upload(self, upload: UnfinishedMultipart) -> None:
        await self._maintenance.abort_upload(upload)
