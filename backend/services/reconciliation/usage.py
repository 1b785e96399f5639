"""Usage: how many objects and bytes are where, and how much space is left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio

from backend.database import reconciliation
from backend.database.reconciliation import Holding
from backend.database.session import Database
from backend.errors import StorageError
from backend.services.reconciliation.findings import Unchecked, UncheckedTally
from backend.services.storage import ListedObject, Stores
from backend.services.storage.spool.space import DiskSpace
from backend.services.storage.spool.temporary import Spool


@dataclass(frozen=True, slots=True)
class Amount:
    """How many things, and their size together."""

    objects: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What is where.

    Attributes:
        holdings: objects by store and kind, as the rows say; `verify` tells whether that is true.
        lost: objects whose row says that they are missing or damaged.
        spool: uploads in progress, recordings that wait for their job, and what was left behind.
        quarantine: by store, what repairs have moved there.
        free_bytes: free space on the local disk; None if that cannot be known.
        unchecked: stores whose quarantine could not be listed.
    """

    holdings: tuple[Holding, ...]
    lost: int
    spool: Amount
    quarantine: dict[str, Amount]
    free_bytes: int | None
    unchecked: tuple[Unchecked, ...]


async def measure_usage(stores: Stores, spool: Spool, space: DiskSpace, database: Database) -> Usage:
    """Count.

    Raises:
        DatabaseUnavailable
        StorageError: the spool cannot be read.
    """
    async with database.transaction() as session:
        holdings, lost = await reconciliation.holdings(session), await reconciliation.count_lost(session)
    files = await spool.list_files()
    quarantine, unchecked = {}, UncheckedTally()
    for store in stores.all:
        try:
            quarantine[store.name] = await _sum(store.iterate_quarantine())
        except StorageError as error:
            unchecked.add(store.name, 0, error)
    return Usage(
        holdings=tuple(holdings),
        lost=lost,
        spool=Amount(len(files), sum(item.size_bytes for item in files)),
        quarantine=quarantine,
        free_bytes=await anyio.to_thread.run_sync(space.measure),
        unchecked=unchecked.all,
    )


async def _sum(items: AsyncIterator[ListedObject]) -> Amount:
    objects = size_bytes = 0
    async for item in items:
        objects += 1
        size_bytes += item.size_bytes
    return Amount(objects, size_bytes)
