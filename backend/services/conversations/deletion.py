"""Deleting conversations so that a delete, once asked for, ends, even if stores fail on the way.

First the tombstone, in one transaction with the erasure of the text: from then on the conversation is invisible,
nothing of it moves, and no job may add to it. Then its objects, the manifest before all others, so that no rebuild
finds a half-deleted conversation. At last its rows. Each step may be repeated.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from backend.database import deletions, jobs, objects
from backend.database.models import StoredObjectRow
from backend.database.objects import list_objects
from backend.database.session import Database
from backend.errors import AppError, InvalidInput, NotFound, StorageError, StorageUnavailable
from backend.services.storage import StorageService, Stores
from backend.services.storage.spool.accepted import AcceptedRecordings

logger = logging.getLogger(__name__)

PAGE = 200

Silent = dict[str, StorageUnavailable]
"""Stores that did not answer in a pass, and how."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """How far a delete has come.

    Attributes:
        left: locators of objects that are still there; a store's name if it could not be asked what else it has.
        reason: what the first of them waits for; None if nothing is left.
    """

    conversation_id: str
    left: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def complete(self) -> bool:
        """Whether everything is gone: objects and rows."""
        return not self.left


@dataclass(frozen=True, slots=True)
class DeletesReport:
    """What a pass over unfinished deletes did. `reason` says what the first of those that are left waits for."""

    finished: int = 0
    left: int = 0
    reason: str | None = None


class DeletionService:
    """Deletes conversations, and finishes what could not be finished.

    Args:
        storage: has the objects.
        stores: all that may have objects of a conversation.
        accepted: has recordings that wait for their job.
        database: has the rows.
    """

    def __init__(
        self, storage: StorageService, stores: Stores, accepted: AcceptedRecordings, database: Database
    ) -> None:
        self._storage = storage
        self._stores = stores
        self._accepted = accepted
        self._database = database

    async def delete(self, conversation_id: str) -> Deletion:
        """Delete a conversation, as far as its stores can be reached; `finish_pending` does the rest.

        Raises:
            NotFound: the conversation does not exist, or was deleted before.
            DatabaseUnavailable: ask again; what is gone by then does no harm.
        """
        async with self._database.transaction() as session:
            if not await deletions.bury(session, conversation_id, datetime.now(UTC)):
                raise NotFound(f"There is no conversation {conversation_id!r}.")
            job_ids = await jobs.ids_of(session, conversation_id)
        for job_id in job_ids:
            try:
                await self._accepted.remove(job_id)
            except StorageError as error:
                logger.warning("%s waits for the next sweep of the spool: %s", job_id, error)
        deletion = await self._finish(conversation_id, {})
        if not deletion.complete:
            logger.warning(
                "%s is deleted, but %d objects are left for now: %s",
                conversation_id,
                len(deletion.left),
                deletion.reason,
            )
        return deletion

    async def is_pending(self) -> bool:
        """Whether some delete was not finished.

        Raises:
            DatabaseUnavailable
        """
        async with self._database.transaction() as session:
            return bool(await deletions.list_buried(session, after="", limit=1))

    async def finish_pending(self) -> DeletesReport:
        """Go on with every delete that was not finished. May run beside deletes, drains and itself.

        Raises:
            DatabaseUnavailable
        """
        report, last = DeletesReport(), ""
        silent: Silent = {}
        while page := await self._pending(after=last):
            for conversation_id in page:
                deletion = await self._finish(conversation_id, silent)
                if deletion.complete:
                    report = replace(report, finished=report.finished + 1)
                else:
                    reason = report.reason or deletion.reason
                    report = replace(report, left=report.left + 1, reason=reason)
            last = page[-1]
        if report != DeletesReport():
            logger.info("finished %d deletes, %d are left: %s", report.finished, report.left, report.reason or "none")
        return report

    async def _pending(self, *, after: str) -> Sequence[str]:
        async with self._database.transaction() as session:
            return await deletions.list_buried(session, after=after, limit=PAGE)

    async def _finish(self, conversation_id: str, silent: Silent) -> Deletion:
        """Objects, then rows; again while a job that had not heard of the delete adds objects."""
        while True:
            async with self._database.transaction() as session:
                rows = await list_objects(session, conversation_id)
            left: dict[str, AppError] = {}
            for row in sorted(rows, key=lambda row: row.kind != "metadata"):
                if (error := await self._delete_object(row, silent)) is not None:
                    left[row.locator] = error
            # Even without a row there may be something: a copy that a killed drain made, a save whose reply was lost.
            held_up = {row.store for row in rows if row.locator in left}
            for store in [name for name in self._stores.names if name not in held_up]:
                if (error := await self._delete_unnamed(store, conversation_id, silent)) is not None:
                    left[store] = error
            if left:
                return Deletion(conversation_id, tuple(left), str(next(iter(left.values()))))
            async with self._database.transaction() as session:
                if await deletions.remove_buried(session, conversation_id):
                    return Deletion(conversation_id)

    async def _delete_object(self, row: StoredObjectRow, silent: Silent) -> AppError | None:
        """Delete the object, then its row; returns what prevents it."""
        try:
            with _asking(row.store, silent):
                await self._storage.delete(row.locator)
        except (StorageError, InvalidInput) as error:
            return error
        async with self._database.transaction() as session:
            await objects.forget(session, row)
        return None

    async def _delete_unnamed(self, store: str, conversation_id: str, silent: Silent) -> AppError | None:
        try:
            with _asking(store, silent):
                await self._storage.delete_all(store, conversation_id)
        except StorageError as error:
            return error
        return None


@contextmanager
def _asking(store: str, silent: Silent) -> Iterator[None]:
    """Ask a store, unless it did not answer earlier in this pass; remember if it does not.

    Raises:
        StorageUnavailable: what it raised then.
    """
    if store in silent:
        raise silent[store].with_traceback(None)
    try:
        yield
    except StorageUnavailable as error:
        silent[store] = error
        raise
