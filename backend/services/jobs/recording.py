"""A job's recording as a local file: from the spool of this machine, or from where it was stored on arrival."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from backend.database import objects
from backend.database.models import Job, StoredObjectRow
from backend.database.session import Database
from backend.errors import (
    ObjectCorrupt,
    ObjectMissing,
    ProcessingFailed,
    StorageFull,
    StorageMisconfigured,
    StorageUnavailable,
)
from backend.services.storage import Mover, SpooledFile, StorageService
from backend.services.storage.spool.accepted import AcceptedRecordings

logger = logging.getLogger(__name__)

ASK_AGAIN_AFTER_S = 2.0
REMEDY = "Workers on several machines need a shared UPLOAD_DIR, or S3."


class OutOfReach(Exception):
    """This process cannot read a recording; another one may. The message says what is wrong here."""


class Recordings:
    """
    Args:
        storage: has recordings that were stored on arrival.
        accepted: has those that wait in the spool.
        mover: knows which of them will move.
        database: has the rows.
    """

    def __init__(self, storage: StorageService, accepted: AcceptedRecordings, mover: Mover, database: Database) -> None:
        self._storage = storage
        self._accepted = accepted
        self._mover = mover
        self._database = database

    @asynccontextmanager
    async def open(self, job: Job, check: Callable[[], None]) -> AsyncGenerator[SpooledFile, None]:
        """The recording, for as long as the context is open. Waits while its store does not answer.

        Args:
            check: called while waiting; may raise, to give up.

        Raises:
            OutOfReach
            ProcessingFailed: it is not what was uploaded.
            DatabaseUnavailable
        """
        async with AsyncExitStack() as stack:
            yield await self._enter(stack, job, check)

    async def _enter(self, stack: AsyncExitStack, job: Job, check: Callable[[], None]) -> SpooledFile:
        while True:
            check()
            row = None if job.recording in (None, job.id) else await self._find_row(job)
            try:
                return await self._read(stack, job, row)
            except ObjectCorrupt as error:
                raise ProcessingFailed(f"The recording was damaged: {error}", job.conversation_id) from error
            except StorageUnavailable as error:
                logger.warning("waiting for the recording of job %s: %s", job.id, error)
            except (ObjectMissing, StorageMisconfigured, StorageFull) as error:
                if row is None or not self._will_move(row):
                    remedy = f" {REMEDY}" if row is not None and row.store in self._mover.sources else ""
                    raise OutOfReach(f"{error}{remedy}") from error
                logger.warning("waiting until the recording of job %s has moved to S3: %s", job.id, error)
            await asyncio.sleep(ASK_AGAIN_AFTER_S)

    async def _find_row(self, job: Job) -> StoredObjectRow | None:
        """Where it is now: objects that were saved locally during an outage of S3 move there after it."""
        async with self._database.transaction() as session:
            return await objects.find_audio(session, job.conversation_id)

    async def _read(self, stack: AsyncExitStack, job: Job, row: StoredObjectRow | None) -> SpooledFile:
        if row is None:
            return await self._accepted.get(job.id, job.size_bytes, job.sha256)
        expected = replace(objects.expected_of(row), saved_at=None)  # hashed whole, however old and large
        return await stack.enter_async_context(self._storage.as_file(row.locator, expected))

    def _will_move(self, row: StoredObjectRow) -> bool:
        return row.parked is None and self._mover.will_move(row.store)
