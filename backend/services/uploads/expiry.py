"""UploadSweeper: deletes uploads that have expired, and files that killed processes left of others."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from backend.database import uploads
from backend.database.session import Database
from backend.domain.lifecycle import Retention
from backend.errors import StorageError, UploadInUse
from backend.services.storage.spool.resumable import ResumableFiles
from backend.services.uploads.service import UploadService

logger = logging.getLogger(__name__)

AT_ONCE = 1000


class UploadSweeper:
    """Any number of processes may sweep at the same time.

    Args:
        retention: of a file that belongs to no upload, after its last change. Uploads carry the time they expire.
    """

    def __init__(
        self, service: UploadService, files: ResumableFiles, database: Database, *, retention: Retention
    ) -> None:
        self._service = service
        self._files = files
        self._database = database
        self._retention = retention

    async def sweep(self) -> int:
        """Delete what has expired and what belongs to no upload; returns the number of both.

        Raises:
            StorageError: the folder cannot be read.
            DatabaseUnavailable
        """
        if swept := await self._sweep_expired() + await self._sweep_files():
            logger.info("%d expired uploads were deleted", swept)
        return swept

    async def _sweep_expired(self) -> int:
        async with self._database.transaction() as session:
            expired = await uploads.list_expired(session, datetime.now(UTC), AT_ONCE)
        swept = 0
        for row in expired:
            try:
                await self._service.discard(row)
                swept += 1
            except UploadInUse:
                continue
            except StorageError as error:
                logger.warning("the upload %s has expired and cannot be deleted: %s", row.id, error)
        return swept

    async def _sweep_files(self) -> int:
        names = set(await self._files.names(older_than_s=self._retention.keep_s))
        if not names:
            return 0
        async with self._database.transaction() as session:
            names -= await uploads.known_spools(session, names)
        for name in names:
            await self._files.remove(name)
        return len(names)
