"""ReconciliationService: verify, repair, rebuild, usage; one at a time in a process, since each reads everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from backend.concurrency.rate import RateLimit
from backend.database.session import Database
from backend.errors import Conflict
from backend.services.reconciliation.findings import Grace, ReportProgress, ignore_progress
from backend.services.reconciliation.inspection import BATCH, Inspection
from backend.services.reconciliation.quarantine import EmptyingReport, empty_quarantine
from backend.services.reconciliation.rebuild import Rebuild, RebuildReport
from backend.services.reconciliation.relocation import Relocation, RelocationReport
from backend.services.reconciliation.repair import Repair, RepairReport
from backend.services.reconciliation.usage import Usage, measure_usage
from backend.services.reconciliation.verify import Bounds, VerifyReport, verify
from backend.services.storage import Stores
from backend.services.storage.spool.space import DiskSpace
from backend.services.storage.spool.temporary import Spool


@dataclass(frozen=True, slots=True)
class Scope:
    """What is looked at, and how.

    Attributes:
        deep: read every object and compare its SHA-256.
        max_bytes_per_s: how fast objects are read for that; 0: as fast as can be.
        grace: what is younger is left alone.
        bounds: where to begin and when to stop.
    """

    deep: bool = False
    max_bytes_per_s: int = 0
    grace: Grace = field(default_factory=Grace)
    bounds: Bounds = field(default_factory=Bounds)


class ReconciliationService:
    """
    Args:
        stores: have the objects.
        spool: has uploads in progress, and what they left behind.
        space: how full the local disk is.
        database: has the rows.
        batch: rows and objects that are compared at once.
    """

    def __init__(
        self, stores: Stores, spool: Spool, space: DiskSpace, database: Database, *, batch: int = BATCH
    ) -> None:
        self._stores = stores
        self._spool = spool
        self._space = space
        self._database = database
        self._batch = batch
        self._running: str | None = None

    async def verify(self, scope: Scope, progress: ReportProgress = ignore_progress) -> VerifyReport:
        """Compare rows and stores both ways; change nothing.

        Raises:
            InvalidInput: the cursor is malformed.
            Conflict: one of these is running already.
            DatabaseUnavailable
        """
        with self._alone("verify"):
            inspection = self._inspection(scope, RateLimit(scope.max_bytes_per_s), progress)
            return await verify(inspection, deep=scope.deep, bounds=scope.bounds)

    async def repair(self, scope: Scope, *, apply: bool, progress: ReportProgress = ignore_progress) -> RepairReport:
        """Put right what `verify` finds, or say how. Errors as there."""
        with self._alone("repair"):
            pace = RateLimit(scope.max_bytes_per_s)
            inspection = self._inspection(scope, pace, progress)
            repair = Repair(self._stores, self._spool, self._database, inspection, apply=apply, pace=pace)
            return await repair.run(scope.bounds)

    async def rebuild(self, *, apply: bool, progress: ReportProgress = ignore_progress) -> RebuildReport:
        """Write the rows of every conversation that has a manifest and no rows.

        Raises:
            Conflict: one of these is running already.
            DatabaseUnavailable
        """
        with self._alone("rebuild"):
            return await Rebuild(self._stores, self._database, apply=apply, progress=progress).run()

    async def relocate(self, old: str, *, deep: bool, apply: bool) -> RelocationReport:
        """Let the rows follow UPLOAD_DIR, which was `old` before, if every object is there. Errors as `Relocation`."""
        with self._alone("relocation"):
            return await Relocation(self._stores, self._database, old, deep=deep, batch=self._batch).run(apply=apply)

    async def empty_quarantine(self, *, older_than_s: float, apply: bool) -> EmptyingReport:
        """Delete for good what has been in the quarantine for longer than that, or say how much that is."""
        return await empty_quarantine(self._stores, older_than_s=older_than_s, apply=apply)

    async def usage(self) -> Usage:
        """Count objects and bytes.

        Raises:
            DatabaseUnavailable
        """
        return await measure_usage(self._stores, self._spool, self._space, self._database)

    def _inspection(self, scope: Scope, pace: RateLimit, progress: ReportProgress) -> Inspection:
        return Inspection(
            self._stores,
            self._spool,
            self._database,
            deep=scope.deep,
            pace=pace,
            grace=scope.grace,
            progress=progress,
            batch=self._batch,
        )

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        if self._running is not None:
            raise Conflict(f"A {self._running} is running in this process. Ask again when it has ended.")
        self._running = name
        try:
            yield
        finally:
            self._running = None
