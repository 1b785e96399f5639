"""The drain: objects that were saved locally while S3 could not be used follow to S3. No schedule; that is elsewhere.

Every step may be the last one before a power cut. In this order nothing is lost, and a second run finishes the first:
the copy in S3 is complete before the row names it, and the row names it before the local file goes. What a killed run
leaves is taken over (a copy without a row) or swept up (a local file that no row names any more).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime

from backend.concurrency.rate import RateLimit
from backend.database import objects
from backend.database.models import StoredObjectRow
from backend.database.session import Database
from backend.errors import (
    DatabaseUnavailable,
    InvalidInput,
    ObjectCorrupt,
    ObjectExists,
    ObjectMissing,
    StorageError,
    StorageFull,
    StorageMisconfigured,
    StorageUnavailable,
)
from backend.observability.metrics import Metrics
from backend.services.lifecycle.leftovers import sweep
from backend.services.lifecycle.reports import Backlog, DrainOutcome, DrainReport, DrainResult
from backend.services.storage import Mover, StorageService, StoredObject, VerifiedFile

__all__ = ["Backlog", "DrainOutcome", "DrainReport", "DrainResult", "DrainService"]

logger = logging.getLogger(__name__)

PAGE = 200
"""The number of rows that are read at once."""

FAILED_AGAIN_AFTER_S = 300.0

CONCERNS_ALL = (StorageUnavailable, StorageMisconfigured, StorageFull)
"""What S3 says of one object and means of every other, too: a pass ends with it."""


ReportDrain = Callable[[DrainReport], None]


class DrainService:
    """Moves objects from the local folder to the primary store. Safe to run in several processes at once.

    Args:
        storage: deletes what has moved.
        mover: copies to the primary store.
        database: the rows, which say where each object is.
        metrics: counts what moved.
        concurrency: objects on their way at once.
        max_bytes_per_s: what this process sends at most, over some seconds; 0: as much as it can.
    """

    def __init__(
        self,
        storage: StorageService,
        mover: Mover,
        database: Database,
        metrics: Metrics,
        *,
        concurrency: int = 8,
        max_bytes_per_s: int = 0,
    ) -> None:
        self._storage = storage
        self._mover = mover
        self._database = database
        self._metrics = metrics
        self._concurrency = concurrency
        self._pace = RateLimit(max_bytes_per_s)
        self._in_flight: set[int] = set()
        self._not_before: dict[int, float] = {}
        self._swept = False

    async def backlog(self) -> Backlog:
        """What waits now.

        Raises:
            DatabaseUnavailable
        """
        if not self._mover.has_target:
            return Backlog()
        async with self._database.transaction() as session:
            local = await objects.count_local(session, self._mover.sources)
        age_s = (datetime.now(UTC) - local.oldest_at).total_seconds() if local.oldest_at else 0.0
        return Backlog(local.objects, local.bytes, local.parked, round(max(0.0, age_s), 1))

    async def pending(self, limit: int = PAGE, after: int = 0) -> Sequence[StoredObjectRow]:
        """Objects that wait, oldest first, beginning after an id; none where they belong on the local disk.

        Raises:
            DatabaseUnavailable
        """
        if not self._mover.has_target:
            return ()
        async with self._database.transaction() as session:
            return await objects.list_local(session, self._mover.sources, after=after, limit=limit)

    async def retry_parked(self) -> int:
        """Let everything that is parked, or failed, be tried again; returns how many were parked.

        Raises:
            DatabaseUnavailable
        """
        self._not_before.clear()
        async with self._database.transaction() as session:
            return await objects.unpark_all(session, self._mover.sources)

    async def drain_all(
        self,
        *,
        concurrency: int | None = None,
        max_bytes_per_s: int | None = None,
        max_seconds: float = math.inf,
        progress: ReportDrain = lambda _: None,
    ) -> DrainReport:
        """Move everything that waits, oldest first. Ends early, and says why, when S3 or the database is in trouble.

        Args:
            concurrency: default: as configured.
            max_bytes_per_s: default: as configured; 0: as much as it can.
            max_seconds: the time after which no further object is begun.
            progress: called after each object.
        """
        pace = self._pace if max_bytes_per_s is None else RateLimit(max_bytes_per_s)
        report = DrainReport()
        queue = _Queue(self)
        ends_at = time.monotonic() + max_seconds

        async def work() -> None:
            nonlocal report
            try:
                while report.stopped is None and time.monotonic() < ends_at:
                    if (row := await queue.next()) is None:
                        return
                    outcome = await self._drain_once(row.id, pace, row)
                    report = report.plus(outcome)
                    progress(report)
            except (StorageError, DatabaseUnavailable) as error:
                report = replace(report, stopped=report.stopped or str(error))

        await self._sweep_once()
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency or self._concurrency):
                group.create_task(work())
        if report != DrainReport():
            logger.info("drained %d objects (%d bytes)%s", report.moved, report.bytes, _remarks(report))
        return report

    async def drain_object(self, object_id: int) -> DrainOutcome:
        """Move one object. May be repeated, however the last attempt ended.

        Raises:
            StorageError: S3 is in trouble; the object stays where it is.
            DatabaseUnavailable
        """
        return await self._drain_once(object_id, self._pace)

    async def _sweep_once(self) -> None:
        """Leftovers come of processes that were killed: one look after the start is enough, if it succeeds."""
        if self._swept or not self._mover.has_target:
            return
        try:
            await sweep(self._storage, self._mover, self._database)
            self._swept = True
        except (StorageError, DatabaseUnavailable) as error:
            logger.warning("local files that moved to S3 earlier were not swept up yet: %s", error)

    async def _drain_once(self, object_id: int, pace: RateLimit, row: StoredObjectRow | None = None) -> DrainOutcome:
        if not self._mover.has_target or self._is_busy(object_id):
            return DrainOutcome(object_id, DrainResult.SKIPPED)
        self._in_flight.add(object_id)
        try:
            row = row or await self._find(object_id)
            if row is not None and await pace.wait(row.size_bytes):
                row = await self._find(object_id)
            return await self._drain(row, pace) if row else DrainOutcome(object_id, DrainResult.SKIPPED)
        finally:
            self._in_flight.discard(object_id)

    def _is_busy(self, object_id: int) -> bool:
        return object_id in self._in_flight or self._not_before.get(object_id, 0.0) > time.monotonic()

    async def _drain(self, row: StoredObjectRow, pace: RateLimit) -> DrainOutcome:
        if (trouble := self._mover.trouble) is not None:
            raise trouble
        async with AsyncExitStack() as stack:
            try:
                stored = objects.stored_of(row, self._storage.key(row.locator))
                file = await stack.enter_async_context(self._mover.verified_file(stored))
            except (ObjectCorrupt, InvalidInput) as error:
                return await self._park(row, str(error))
            except StorageError as error:
                return await self._stay(row, error)
            return await self._send(row, stored, file, pace)

    async def _send(
        self, row: StoredObjectRow, stored: StoredObject, file: VerifiedFile, pace: RateLimit
    ) -> DrainOutcome:
        try:
            copy = await self._mover.copy(file, stored, at=row.created_at, max_bytes_per_s=pace.max_bytes_per_s)
        except CONCERNS_ALL:
            raise
        except ObjectMissing as error:
            return await self._stay(row, error)
        except (StorageError, ObjectExists) as error:
            return await self._park(row, str(error))
        if not await self._mover.is_unchanged(file):
            await self._drop(row, copy)
            return await self._park(row, f"{row.locator} was changed while it was copied to {copy.locator}.")
        return await self._switch(row, copy)

    async def _switch(self, row: StoredObjectRow, copy: StoredObject) -> DrainOutcome:
        async with self._database.transaction() as session:
            moved = await objects.switch(session, row, store=copy.store, locator=copy.locator, version=copy.version)
        if not moved:
            await self._drop(row, copy)
            return DrainOutcome(row.id, DrainResult.SKIPPED)
        self._metrics.drained(row.size_bytes)
        try:
            await self._storage.delete(row.locator)
        except StorageError as error:
            self._swept = False
            logger.warning("%s moved to %s, but its local copy stays for now: %s", row.locator, copy.locator, error)
        return DrainOutcome(row.id, DrainResult.MOVED, copy.locator, row.size_bytes)

    async def _drop(self, row: StoredObjectRow, copy: StoredObject) -> None:
        """Delete a copy that no row names: the conversation was deleted in the meantime. Another drain's copy stays."""
        async with self._database.transaction() as session:
            in_use = await objects.is_in_use(session, row.conversation_id, copy.locator)
        if in_use:
            return
        try:
            await self._storage.delete(copy.locator)
        except StorageError:
            logger.error("%s is left without a row and could not be deleted", copy.locator)
            raise

    async def _park(self, row: StoredObjectRow, reason: str) -> DrainOutcome:
        logger.error("%s does not move to S3: %s", row.locator, reason)
        async with self._database.transaction() as session:
            await objects.park(session, row.id, row.locator, reason)
        return DrainOutcome(row.id, DrainResult.PARKED, row.locator, reason=reason)

    async def _stay(self, row: StoredObjectRow, error: StorageError) -> DrainOutcome:
        """The file cannot be read. It may just have moved or been deleted, or lie on another machine."""
        now = await self._find(row.id)
        if now is None or now.locator != row.locator:
            return DrainOutcome(row.id, DrainResult.SKIPPED)
        self._not_before[row.id] = time.monotonic() + FAILED_AGAIN_AFTER_S
        logger.error("%s could not be moved to S3: %s", row.locator, error)
        return DrainOutcome(row.id, DrainResult.FAILED, row.locator, reason=str(error))

    async def _find(self, object_id: int) -> StoredObjectRow | None:
        async with self._database.transaction() as session:
            return await objects.find_local(session, self._mover.sources, object_id)


class _Queue:
    """What waits, read page by page, for several workers."""

    def __init__(self, drain: DrainService) -> None:
        self._drain = drain
        self._page: deque[StoredObjectRow] = deque()
        self._last = 0
        self._reading = asyncio.Lock()

    async def next(self) -> StoredObjectRow | None:
        async with self._reading:
            if not self._page:
                self._page.extend(await self._drain.pending(after=self._last))
            if not self._page:
                return None
            row = self._page.popleft()
            self._last = row.id
            return row


def _remarks(report: DrainReport) -> str:
    counts = {"parked": report.parked, "failed": report.failed, "skipped": report.skipped}
    said = [f"{count} {name}" for name, count in counts.items() if count]
    return ", ".join(["", *said]) + (f"; stopped: {report.stopped}" if report.stopped else "")
