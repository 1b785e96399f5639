"""Local files that a drain left behind when it was killed between its commit and its last step."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from backend.database import objects
from backend.database.models import StoredObjectRow
from backend.database.session import Database
from backend.errors import ObjectMissing
from backend.services.storage import ListedObject, Mover, StorageService

logger = logging.getLogger(__name__)

BATCH = 200
"""Files that are compared with the rows at once."""


async def sweep(storage: StorageService, mover: Mover, database: Database) -> int:
    """Delete every local file that no row names, while a row of its conversation names the same bytes elsewhere.

    A file of other bytes stays, and so does one whose twin cannot be found in its store: it may be the last copy.

    Returns:
        How many were deleted.

    Raises:
        StorageError: a store does not answer.
        DatabaseUnavailable
    """
    swept = 0
    batch: list[ListedObject] = []
    async for item in mover.iterate_local():
        batch.append(item)
        if len(batch) == BATCH:
            swept += await _sweep(batch, storage, mover, database)
            batch = []
    return swept + await _sweep(batch, storage, mover, database)


async def _sweep(batch: Sequence[ListedObject], storage: StorageService, mover: Mover, database: Database) -> int:
    async with database.transaction() as session:
        rows = await objects.list_objects_of(session, {_conversation_of(item) for item in batch})
    named = {row.locator for row in rows}
    swept = 0
    for item in batch:
        twins = [
            row for row in rows if row.conversation_id == _conversation_of(item) and row.store not in mover.sources
        ]
        if item.locator not in named and await _has_twin(item, twins, storage, mover):
            await storage.delete(item.locator)
            logger.info("%s was left behind after its move to S3, and is deleted now", item.locator)
            swept += 1
    return swept


async def _has_twin(item: ListedObject, rows: Sequence[StoredObjectRow], storage: StorageService, mover: Mover) -> bool:
    alike = [row for row in rows if row.size_bytes == item.size_bytes]
    if not alike:
        return False
    try:
        sha256 = await mover.hash_local(item.locator)
        return any([row.sha256 == sha256 and await storage.get_size(row.locator) == row.size_bytes for row in alike])
    except ObjectMissing:
        return False


def _conversation_of(item: ListedObject) -> str:
    return item.key.partition("/")[0]
