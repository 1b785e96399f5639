"""Rebuild: the database from the stores alone. Every manifest without a conversation becomes one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from backend.database import reconciliation
from backend.database.session import Database
from backend.domain.states.conversations import ConversationStatus
from backend.errors import InvalidInput, StorageError
from backend.services.reconciliation.findings import (
    PassProgress,
    ReportProgress,
    Unchecked,
    UncheckedTally,
    ignore_progress,
)
from backend.services.reconciliation.inspection import in_batches
from backend.services.reconciliation.restore import FoundManifest, Restorer, kind_of
from backend.services.storage import ListedObject, ObjectStore, Stores
from backend.services.storage.keys import parse_key

READERS = 8
MAX_TOLD = 1000
"""Gaps that a report lists; all are counted."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A conversation or an object that could not be rebuilt, or not wholly."""

    subject: str
    reason: str


@dataclass(slots=True)
class RebuildReport:
    """What a rebuild did, or, if it was dry, would do.

    Attributes:
        rebuilt: conversations whose rows were written; those with gaps are among them.
        present: manifests of conversations that were there already.
        gaps: manifests that could not be used, objects that no store has, and conversations without a manifest.
        gap_count: how many there are; `gaps` holds the first of them.
    """

    applied: bool
    manifests: int = 0
    rebuilt: int = 0
    present: int = 0
    gap_count: int = 0
    gaps: list[Gap] = field(default_factory=list)
    unchecked: tuple[Unchecked, ...] = ()
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0: everything is there; 1: there are gaps; 2: a store could not be read."""
        if self.unchecked:
            return 2
        return 1 if self.gap_count else 0

    def add_gap(self, subject: str, reason: str) -> None:
        self.gap_count += 1
        if len(self.gaps) < MAX_TOLD:
            self.gaps.append(Gap(subject, reason))


class Rebuild:
    """One pass over all stores; may be repeated, since existing rows are left alone."""

    def __init__(
        self, stores: Stores, database: Database, *, apply: bool, progress: ReportProgress = ignore_progress
    ) -> None:
        self._stores = stores
        self._database = database
        self._restorer = Restorer(stores, database, apply=apply)
        self._progress = progress
        self._unchecked = UncheckedTally()
        self._report = RebuildReport(applied=apply)
        self._seen: set[str] = set()
        self._done: set[str] = set()
        self._told: set[str] = set()

    async def run(self) -> RebuildReport:
        """Write what is missing.

        Raises:
            DatabaseUnavailable
        """
        began = time.perf_counter()
        for store in self._stores.all:
            try:
                async for listed in in_batches(store.iterate()):
                    await self._take(store, listed)
            except StorageError as error:
                self._unchecked.add(store.name, 0, error)
        await self._tell_without_manifest()
        self._report.unchecked = self._unchecked.all
        self._report.seconds = round(time.perf_counter() - began, 3)
        return self._report

    async def _take(self, store: ObjectStore, listed: Sequence[ListedObject]) -> None:
        owners = {item.locator: parsed[0] for item in listed if (parsed := parse_key(item.key))}
        self._seen.update(owners.values())
        candidates = [item for item in listed if item.locator in owners and kind_of(store, item) == "metadata"]
        present = await self._present({owners[item.locator] for item in candidates})
        self._report.manifests += len(candidates)
        self._report.present += sum(owners[item.locator] in present for item in candidates)
        self._done |= present
        for manifest in await self._read(store, [i for i in candidates if owners[i.locator] not in present], owners):
            await self._restore(manifest)
            self._progress(PassProgress(f"objects/{store.name}", self._report.rebuilt, None))

    async def _present(self, conversation_ids: Collection[str]) -> set[str]:
        """Those that are there. One that failed and has nothing may be replaced."""
        async with self._database.transaction() as session:
            states = await reconciliation.states_of(session, conversation_ids)
            failed = {
                name
                for name, state in states.items()
                if state.status == ConversationStatus.FAILED and state.deleted_at is None
            }
            holders = {record.conversation_id for record in await reconciliation.list_records_of(session, failed)}
        return states.keys() - (failed - holders)

    async def _read(
        self, store: ObjectStore, items: Iterable[ListedObject], owners: dict[str, str]
    ) -> list[FoundManifest]:
        """The manifests, best first, so that a conversation with several gets the one that counts."""
        found: list[FoundManifest] = []
        left = iter(items)

        async def read() -> None:
            for item in left:
                try:
                    manifest = await self._restorer.read(store, item.locator)
                except InvalidInput as error:
                    self._report.add_gap(item.locator, str(error))
                    self._told.add(owners[item.locator])
                    continue
                if manifest.manifest.conversation_id == owners[item.locator]:
                    found.append(manifest)
                else:
                    self._report.add_gap(item.locator, "It is the manifest of another conversation.")

        results = await asyncio.gather(*(read() for _ in range(READERS)), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return sorted(found, key=lambda item: item.rank, reverse=True)

    async def _restore(self, found: FoundManifest) -> None:
        conversation_id = found.manifest.conversation_id
        if conversation_id in self._done:
            self._report.present += 1
            return
        try:
            restored = await self._restorer.restore(found)
        except InvalidInput as error:
            self._told.add(conversation_id)
            self._report.add_gap(found.locator, str(error))
            return
        except StorageError as error:
            self._told.add(conversation_id)
            self._unchecked.add(found.store.name, 1, error)
            return
        self._done.add(conversation_id)
        if not restored.written:
            self._report.present += 1
            return
        self._report.rebuilt += 1
        for key in restored.missing:
            self._report.add_gap(conversation_id, f"No store has {key}; its row says so.")

    async def _tell_without_manifest(self) -> None:
        without = sorted(self._seen - self._done - self._told)
        for start in range(0, len(without), 1000):
            ids = without[start : start + 1000]
            async with self._database.transaction() as session:
                states = await reconciliation.states_of(session, ids)
            for conversation_id in ids:
                if conversation_id not in states:
                    self._report.add_gap(conversation_id, "It has objects, and no manifest.")
