"""Deletes uploads that have expired, and what killed processes left of others, again and again."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Self

from backend.concurrency.rounds import Rounds
from backend.database import uploads
from backend.database.session import Database
from backend.errors import StorageError, UploadInUse
from backend.services.storage.spool.resumable import ResumableFiles
from backend.services.uploads.service import UploadService

logger = logging.getLogger(__name__)

EVERY_S = (30.0, 600.0)
"""Shortest and longest pause."""
AT_ONCE = 1000


class UploadSweeper:
    """Runs while its context is open; any number of processes may.

    Args:
        files: the uploads' files.
        expires_s: as for `UploadService`. A file that has not changed for that time belongs to no upload.
    """

    def __init__(self, service: UploadService, files: ResumableFiles, database: Database, *, expires_s: int) -> None:
        self._service = service
        self._files = files
        self._database = database
        self._expires_s = expires_s
        shortest, longest = EVERY_S
        self._rounds = Rounds(
            "deleting expired uploads", self.sweep, lambda: min(max(expires_s / 20, shortest), longest)
        )

    async def __aenter__(self) -> Self:
        self._rounds.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._rounds.stop()

    async def sweep(self) -> int:
        """Delete what has expired and what belongs to no upload; returns how much that was.

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
        names = set(await self._files.names(older_than_s=self._expires_s))
        if not names:
            return 0
        async with self._database.transaction() as session:
            names -= await uploads.known_spools(session, names)
        for name in names:
            await self._files.remove(name)
        return len(names)
