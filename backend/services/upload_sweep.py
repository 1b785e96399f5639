"""Deletes uploads that have expired, and what killed processes left of others, again and again."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Self

from backend.database import uploads
from backend.database.session import Database
from backend.errors import AppError, StorageError, UploadInUse
from backend.services.storage import StorageService
from backend.services.uploads import UploadService

logger = logging.getLogger(__name__)

EVERY_S = (30.0, 600.0)
"""Shortest and longest pause."""
AT_ONCE = 1000


class UploadSweeper:
    """Runs while its context is open; any number of processes may.

    Args:
        expires_s: as for `UploadService`. A file to which nothing has happened for so long belongs to no upload.
    """

    def __init__(self, service: UploadService, storage: StorageService, database: Database, *, expires_s: int) -> None:
        self._service = service
        self._files = storage.growing
        self._database = database
        self._expires_s = expires_s
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def sweep(self) -> int:
        """Delete what has expired and what belongs to no upload; returns how much that was.

        Raises:
            StorageError: the folder cannot be read.
            DatabaseUnavailable
        """
        return await self._sweep_expired() + await self._sweep_files()

    async def _run(self) -> None:
        shortest, longest = EVERY_S
        while True:
            try:
                if swept := await self.sweep():
                    logger.info("%d expired uploads were deleted", swept)
            except AppError as error:
                logger.warning("expired uploads cannot be deleted now: %s", error)
            await asyncio.sleep(min(max(self._expires_s / 20, shortest), longest))

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
