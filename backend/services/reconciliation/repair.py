"""Repair: what an inspection finds is put right as far as that loses nothing. Dry unless told otherwise.

Nothing that may be a recording is deleted: objects without an owner go to the quarantine.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import assert_never, cast

from backend.concurrency.rate import RateLimit
from backend.database import objects, reconciliation
from backend.database.reconciliation import ObjectRecord
from backend.database.session import Database
from backend.domain.filenames import guess_media_type
from backend.errors import Conflict, NewerManifest, StorageError
from backend.services.reconciliation.findings import Finding, FindingKind, Unchecked
from backend.services.reconciliation.inspection import Inspection
from backend.services.reconciliation.restore import FoundManifest, Restorer, kind_of, lost
from backend.services.reconciliation.verify import Bounds
from backend.services.storage import ListedObject, ObjectStore, StoredObject, Stores, UnfinishedMultipart
from backend.services.storage.integrity import sha256_of
from backend.services.storage.keys import distinct_key
from backend.services.storage.spool.temporary import Spool, SpoolFile
from backend.services.storage.values import ObjectKind

MAX_ACTIONS = 1000
"""At most this many are listed; all are counted."""


class ActionKind(StrEnum):
    POINT_ELSEWHERE = "point_elsewhere"
    """The row points to another, intact copy now."""
    MARK_LOST = "mark_lost"
    """There is no intact copy; the row says so."""
    CLEAR_MARK = "clear_mark"
    """The object is back; the row says nothing any more."""
    REATTACH = "reattach"
    """The object's conversation has it again."""
    RESTORE = "restore"
    """The object's conversation is there again, by its manifest."""
    QUARANTINE = "quarantine"
    """The object is out of the way, and kept."""
    REMOVE = "remove"
    """What an upload left in the spool is deleted."""
    ABORT = "abort"
    """The parts of an upload to S3 are deleted."""
    LEAVE = "leave"
    """Nothing is to be done, or nothing can be."""


@dataclass(frozen=True, slots=True)
class Action:
    """What is done about a finding.

    Attributes:
        target: where the object is, or the row points, afterwards.
        error: why it could not be done.
    """

    kind: ActionKind
    finding: FindingKind
    locator: str
    conversation_id: str | None
    detail: str
    target: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What a repair did, or, if it was dry, would do.

    Attributes:
        counts: kind of action → how many; those that failed are in `failed` as well.
        lost: objects of which no intact copy exists.
    """

    applied: bool
    cursor: str | None
    counts: Mapping[str, int]
    failed: int
    lost: int
    actions: tuple[Action, ...]
    unchecked: tuple[Unchecked, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        """0: all is well now; 1: it is not; 2: something could not be looked at."""
        if self.unchecked:
            return 2
        return 1 if self.failed or self.lost or (self.counts and not self.applied) else 0


class Repair:
    """
    Args:
        inspection: says what is wrong.
        apply: False: say what would be done, and do nothing.
        pace: how fast copies are read to see whether they are intact.
    """

    def __init__(
        self,
        stores: Stores,
        spool: Spool,
        database: Database,
        inspection: Inspection,
        *,
        apply: bool,
        pace: RateLimit | None = None,
    ) -> None:
        self._stores = stores
        self._spool = spool
        self._database = database
        self._inspection = inspection
        self._apply = apply
        self._pace = pace
        self._restorer = Restorer(stores, database, apply=apply)
        self._manifests: tuple[str, FoundManifest | None] = ("", None)

    async def run(self, bounds: Bounds) -> RepairReport:
        """Repair what the inspection finds within the bounds.

        Raises:
            InvalidInput: the cursor is malformed.
            DatabaseUnavailable
        """
        began = time.perf_counter()
        is_over, cursor = bounds.stopper(), None
        counts: Counter[str] = Counter()
        actions: list[Action] = []
        failed = lost_objects = 0
        async for batch in self._inspection.batches(bounds.cursor):
            for finding in batch.findings:
                action = await self._repair(finding)
                counts[action.kind] += 1
                failed += action.error is not None
                lost_objects += finding.kind in _ROW_FINDINGS and action.kind != ActionKind.POINT_ELSEWHERE
                if len(actions) < MAX_ACTIONS:
                    actions.append(action)
            if is_over(self._inspection.checked):
                cursor = batch.cursor
                break
        return RepairReport(
            applied=self._apply,
            cursor=cursor,
            counts=dict(counts),
            failed=failed,
            lost=lost_objects,
            actions=tuple(actions),
            unchecked=self._inspection.unchecked.all,
            seconds=round(time.perf_counter() - began, 3),
        )

    async def _repair(self, finding: Finding) -> Action:
        try:
            return await self._choose(finding)
        except (StorageError, Conflict, NewerManifest) as error:
            return _action(ActionKind.LEAVE, finding, "It is left as it is.", error=str(error))

    async def _choose(self, finding: Finding) -> Action:
        subject = finding.subject
        if isinstance(subject, ObjectRecord):
            if finding.kind == FindingKind.FOUND_AGAIN:
                return await self._clear_mark(finding, subject)
            return await self._repair_row(finding, subject)
        if isinstance(subject, ListedObject):
            return await self._repair_orphan(finding, subject)
        if isinstance(subject, SpoolFile):
            if self._apply:
                await self._spool.remove(subject.name)
            return _action(ActionKind.REMOVE, finding, finding.detail)
        if isinstance(subject, UnfinishedMultipart):
            if self._apply:
                await self._store(finding).abort_upload(subject)
            return _action(ActionKind.ABORT, finding, finding.detail)
        assert_never(subject)

    async def _clear_mark(self, finding: Finding, record: ObjectRecord) -> Action:
        if self._apply:
            async with self._database.transaction() as session:
                await reconciliation.set_parked(session, record, None)
        return _action(ActionKind.CLEAR_MARK, finding, "It is there again, and intact.")

    async def _repair_row(self, finding: Finding, record: ObjectRecord) -> Action:
        copy = await self._find_copy(record)
        if copy is not None:
            store, locator = copy
            if self._apply:
                await self._point_to(record, store, locator)
            return _action(ActionKind.POINT_ELSEWHERE, finding, "An intact copy is elsewhere.", target=locator)
        if self._apply and not record.is_lost:
            async with self._database.transaction() as session:
                await reconciliation.set_parked(session, record, lost(finding.kind))
        return _action(ActionKind.MARK_LOST, finding, f"{finding.detail} No store has an intact copy.")

    async def _find_copy(self, record: ObjectRecord) -> tuple[ObjectStore, str] | None:
        key = self._stores.get_owner(record.locator).key(record.locator)
        for store in self._stores.all:
            for name in (key, distinct_key(key, record.sha256[:12])):
                locator = store.locator(cast(ObjectKind, record.kind), name)
                if locator == record.locator:
                    continue
                sizes = await store.find_sizes([locator])
                if sizes.get(locator) != record.size_bytes:
                    continue
                if await sha256_of(store, locator, self._pace) == record.sha256:
                    return store, locator
        return None

    async def _point_to(self, record: ObjectRecord, store: ObjectStore, locator: str) -> None:
        async with self._database.transaction() as session:
            await reconciliation.point_to(session, record, store=store.name, locator=locator)

    async def _repair_orphan(self, finding: Finding, item: ListedObject) -> Action:
        store, conversation_id = self._store(finding), finding.conversation_id or ""
        async with self._database.transaction() as session:
            state = (await reconciliation.states_of(session, [conversation_id])).get(conversation_id)
            records = await reconciliation.list_records_of(session, [conversation_id])
        if any(record.locator == item.locator for record in records):
            return _action(ActionKind.RESTORE, finding, "Its conversation was restored a moment ago.")
        if state is None:
            return await self._repair_stray(finding, store, item)
        if not state.settled:
            return _action(ActionKind.LEAVE, finding, "Its conversation is being processed or deleted.")
        kind = kind_of(store, item)
        held = next((record for record in records if record.kind == kind), None)
        if held is not None:
            return await self._quarantine(finding, store, f"Its conversation has {held.locator} in its place.")
        if self._apply:
            await self._attach(store, item, conversation_id, kind)
        return _action(ActionKind.REATTACH, finding, f"Its conversation has no {kind}.")

    async def _attach(self, store: ObjectStore, item: ListedObject, conversation_id: str, kind: ObjectKind) -> None:
        sha256, content_type = await sha256_of(store, item.locator, self._pace), _content_type(kind, item.key)
        found = StoredObject(item.locator, store.name, item.key, kind, item.size_bytes, sha256, content_type)
        async with self._database.transaction() as session:
            await reconciliation.attach(session, objects.row_of(found, conversation_id, datetime.now(UTC)))

    async def _repair_stray(self, finding: Finding, store: ObjectStore, item: ListedObject) -> Action:
        """An object whose conversation is unknown: its manifest brings that back, if there is one that names it."""
        found = await self._find_manifest(finding.conversation_id or "")
        if found is None or not (found.locator == item.locator or found.names(item.key)):
            return await self._quarantine(finding, store, "There is no such conversation, and no manifest of it.")
        restored = await self._restorer.restore(found)
        gaps = f" No store has {', '.join(restored.missing)}." if restored.missing else ""
        return _action(ActionKind.RESTORE, finding, f"The manifest {found.locator} names it.{gaps}")

    async def _find_manifest(self, conversation_id: str) -> FoundManifest | None:
        """Neighbours in a listing mostly belong to one conversation, so the last answer is kept."""
        if self._manifests[0] != conversation_id:
            self._manifests = conversation_id, await self._restorer.find(conversation_id)
        return self._manifests[1]

    async def _quarantine(self, finding: Finding, store: ObjectStore, why: str) -> Action:
        target = await store.move_to_quarantine(finding.locator) if self._apply else None
        return _action(ActionKind.QUARANTINE, finding, why, target=target)

    def _store(self, finding: Finding) -> ObjectStore:
        return self._stores.get(finding.store)


_ROW_FINDINGS = (FindingKind.MISSING, FindingKind.WRONG_SIZE, FindingKind.CORRUPT)


def _action(
    kind: ActionKind, finding: Finding, detail: str, *, target: str | None = None, error: str | None = None
) -> Action:
    return Action(kind, finding.kind, finding.locator, finding.conversation_id, detail, target, error)


def _content_type(kind: ObjectKind, key: str) -> str:
    fixed = {"transcript": "text/plain; charset=utf-8", "metadata": "application/json"}
    return fixed.get(kind) or guess_media_type(key)
