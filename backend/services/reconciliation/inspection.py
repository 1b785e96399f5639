"""Inspection: rows and stores held against each other, batch by batch, both ways. Finds; changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar, cast

from backend.concurrency.rate import RateLimit
from backend.database import reconciliation
from backend.database.reconciliation import ObjectRecord
from backend.database.session import Database
from backend.errors import AppError, InvalidInput, ObjectMissing, StorageError
from backend.services.reconciliation.findings import (
    Checked,
    Finding,
    FindingKind,
    Grace,
    PassProgress,
    ReportProgress,
    UncheckedTally,
    ignore_progress,
)
from backend.services.storage import ListedObject, ObjectStore, Stores
from backend.services.storage.integrity import sha256_of
from backend.services.storage.keys import parse_key
from backend.services.storage.spool.temporary import Spool
from backend.services.storage.values import ObjectKind

T = TypeVar("T")

BATCH = 1000
"""Rows and objects that are compared at once."""
DEEP_SHARE = 20
"""A deep look takes smaller batches, so that one bounded in time oversteps its bound only a little."""
READERS = 4

_Phase = Callable[[str], AsyncIterator[tuple[list[Finding], str]]]


@dataclass(frozen=True, slots=True)
class Batch:
    """What a part of the inspection found. An inspection that begins at `cursor` goes on after it."""

    findings: tuple[Finding, ...]
    cursor: str


class Inspection:
    """One look at everything.

    Every suspicion is compared with the rows a second time before it is reported, because recordings arrive, move and
    are deleted during the pass.

    Args:
        deep: also read every object and compare its SHA-256.
        pace: how fast objects are read for that.
        grace: what is younger is left alone.
        progress: told after each batch.
        batch: rows and objects that are compared at once.

    Attributes:
        checked: how much was looked at so far.
        unchecked: what could not be looked at so far.
    """

    def __init__(
        self,
        stores: Stores,
        spool: Spool,
        database: Database,
        *,
        deep: bool = False,
        pace: RateLimit | None = None,
        grace: Grace | None = None,
        progress: ReportProgress = ignore_progress,
        batch: int = BATCH,
    ) -> None:
        self._stores = stores
        self._spool = spool
        self._database = database
        self._deep = deep
        self._batch = batch
        self._pace = pace or RateLimit()
        self._grace = grace or Grace()
        self._progress = progress
        self._off: dict[str, StorageError] = {}
        self._now = datetime.now(UTC)
        self.checked = Checked()
        self.unchecked = UncheckedTally()

    async def batches(self, cursor: str | None = None) -> AsyncIterator[Batch]:
        """Look at rows, then at each store's objects, then at what uploads left behind.

        Args:
            cursor: where an earlier inspection stopped.

        Raises:
            InvalidInput: the cursor is malformed.
            DatabaseUnavailable
        """
        phases = self._phases()
        begin, _, after = (cursor or "rows:").partition(":")
        if begin not in phases or (begin == "rows" and not after.isdecimal() and after):
            raise InvalidInput(f"{(cursor or '')[:200]!r} is no cursor. Pass the one of an earlier report.")
        for name in list(phases)[list(phases).index(begin) :]:
            async for findings, position in phases[name](after if name == begin else ""):
                yield Batch(tuple(findings), f"{name}:{position}")

    def _phases(self) -> dict[str, _Phase]:
        def objects(store: ObjectStore) -> _Phase:
            return lambda after: self._look_at_objects(store, after)

        def uploads(store: ObjectStore) -> _Phase:
            return lambda _: self._look_at_uploads(store)

        stores = self._stores.all
        return {
            "rows": self._look_at_rows,
            **{f"objects/{store.name}": objects(store) for store in stores},
            "spool": self._look_at_spool,
            **{f"uploads/{store.name}": uploads(store) for store in stores if store.traits.takes_parts},
        }

    async def _look_at_rows(self, after: str) -> AsyncIterator[tuple[list[Finding], str]]:
        last = int(after or 0)
        async with self._database.transaction() as session:
            total = await reconciliation.count_records(session)
        while records := await self._list_records(last):
            last = records[-1].id
            findings = [found for pair in self._by_store(records) for found in await self._check_rows(*pair)]
            self._progress(PassProgress("rows", self.checked.rows, total))
            yield findings, str(last)

    async def _list_records(self, after: int) -> Sequence[ObjectRecord]:
        async with self._database.transaction() as session:
            limit = max(1, self._batch // DEEP_SHARE) if self._deep else self._batch
            return await reconciliation.list_records(session, after=after, limit=limit)

    def _by_store(self, records: Sequence[ObjectRecord]) -> Iterator[tuple[ObjectStore, list[ObjectRecord]]]:
        groups: dict[str, tuple[ObjectStore, list[ObjectRecord]]] = {}
        for record in records:
            try:
                store = self._stores.get_owner(record.locator)
            except AppError as error:
                self.unchecked.add(record.store, 1, error)
                continue
            groups.setdefault(store.name, (store, []))[1].append(record)
        yield from groups.values()

    async def _check_rows(self, store: ObjectStore, records: Sequence[ObjectRecord]) -> list[Finding]:
        if (trouble := self._off.get(store.name)) is not None:
            self.unchecked.add(store.name, len(records), trouble)
            return []
        try:
            sizes = await store.find_sizes([record.locator for record in records])
        except StorageError as error:
            self._turn_off(store, error, len(records))
            return []
        self.checked.rows += len(records)
        suspects: list[Finding] = []
        right_size: list[ObjectRecord] = []
        for record in records:
            size = sizes.get(record.locator)
            if isinstance(size, AppError):
                self.unchecked.add(store.name, 1, size)
            elif size is None:
                suspects.append(_finding(FindingKind.MISSING, store, record, "It is not in its store."))
            elif size != record.size_bytes:
                detail = f"It has {size} bytes; its row says {record.size_bytes}."
                suspects.append(_finding(FindingKind.WRONG_SIZE, store, record, detail))
            elif self._deep or record.is_lost:
                right_size.append(record)
        suspects += await self._check_hashes(store, right_size)
        return await self._confirm(suspects)

    async def _check_hashes(self, store: ObjectStore, records: Sequence[ObjectRecord]) -> list[Finding]:
        """Several readers side by side: a store far away answers each of them slowly."""
        findings: list[Finding] = []
        left = iter(records)

        async def read() -> None:
            for record in left:
                try:
                    sha256 = await sha256_of(store, record.locator, self._pace)
                except ObjectMissing:
                    findings.append(_finding(FindingKind.MISSING, store, record, "It is not in its store."))
                    continue
                except AppError as error:
                    self.unchecked.add(store.name, 1, error)
                    continue
                self.checked.hashed_bytes += record.size_bytes
                if sha256 != record.sha256:
                    detail = f"Its SHA-256 is {sha256}; its row says {record.sha256}."
                    findings.append(_finding(FindingKind.CORRUPT, store, record, detail))
                elif record.is_lost:
                    detail = "It is marked as lost, and is there."
                    findings.append(_finding(FindingKind.FOUND_AGAIN, store, record, detail))

        await asyncio.gather(*(read() for _ in range(READERS)))
        return findings

    async def _confirm(self, suspects: Sequence[Finding]) -> list[Finding]:
        """Only those whose row says the same as before: the others moved or went."""
        if not suspects:
            return []
        ids = [found.subject.id for found in suspects if isinstance(found.subject, ObjectRecord)]
        async with self._database.transaction() as session:
            now = {record.id: record for record in await reconciliation.get_records(session, ids)}
        return [found for found in suspects if now.get(getattr(found.subject, "id", 0)) == found.subject]

    async def _look_at_objects(self, store: ObjectStore, after: str) -> AsyncIterator[tuple[list[Finding], str]]:
        if store.name in self._off:
            return
        phase = f"objects/{store.name}"
        done = 0
        try:
            async for listed in in_batches(store.iterate(after=after or None), self._batch):
                findings = await self._check_objects(store, listed)
                done += len(listed)
                self.checked.objects += len(listed)
                self._progress(PassProgress(phase, done, None))
                yield findings, listed[-1].locator
        except StorageError as error:
            self._turn_off(store, error, 0)

    async def _check_objects(self, store: ObjectStore, listed: Sequence[ListedObject]) -> list[Finding]:
        owners = {item.locator: parsed[0] for item in listed if (parsed := parse_key(item.key))}
        self.checked.foreign += len(listed) - len(owners)
        latest = self._now - timedelta(seconds=self._grace.orphan_s)
        old = [item for item in listed if item.locator in owners and item.modified_at <= latest]
        async with self._database.transaction() as session:
            records = await reconciliation.list_records_of(session, {owners[item.locator] for item in old})
        unknown = _without_row(store, old, records, owners)
        if not unknown:
            return []
        there = await store.find_sizes([item.locator for item in unknown])
        async with self._database.transaction() as session:
            states = await reconciliation.states_of(session, {owners[item.locator] for item in unknown})
            in_use = await reconciliation.recordings_in_use(session, [item.locator for item in unknown])
        return [
            _orphan(store, item, owners[item.locator], known=owners[item.locator] in states)
            for item in unknown
            if item.locator in there and item.locator not in in_use
            if (state := states.get(owners[item.locator])) is None or state.settled
        ]

    async def _look_at_spool(self, _after: str) -> AsyncIterator[tuple[list[Finding], str]]:
        try:
            files = await self._spool.list_files()
        except StorageError as error:
            self.unchecked.add("spool", 0, error)
            return
        self.checked.spool_files += len(files)
        latest = self._now - timedelta(seconds=self._grace.stale_s)
        old = [item for item in files if item.modified_at <= latest]
        async with self._database.transaction() as session:
            in_use = await reconciliation.uploads_in_use(session)
            for start in range(0, len(old), self._batch):
                names = [_last_part(item.name) for item in old[start : start + self._batch]]
                in_use |= await reconciliation.recordings_in_use(session, names)
        detail = "Its upload ended long ago, and no job needs it."
        yield (
            [
                Finding(FindingKind.STALE_SPOOL_FILE, "spool", item.name, detail, item, size_bytes=item.size_bytes)
                for item in old
                if not {item.name, _last_part(item.name)} & in_use
            ],
            "",
        )

    async def _look_at_uploads(self, store: ObjectStore) -> AsyncIterator[tuple[list[Finding], str]]:
        if store.name in self._off:
            return
        latest = self._now - timedelta(seconds=self._grace.stale_s)
        async with self._database.transaction() as session:
            in_use = await reconciliation.uploads_in_use(session)
        findings = []
        try:
            async for item in store.iterate_uploads():
                self.checked.unfinished_uploads += 1
                if item.started_at <= latest and item.upload_id not in in_use:
                    detail = f"It was begun {item.started_at:%Y-%m-%d %H:%M} UTC and never completed."
                    findings.append(Finding(FindingKind.UNFINISHED_UPLOAD, store.name, item.locator, detail, item))
        except StorageError as error:
            self.unchecked.add(store.name, 0, error)
        yield findings, ""

    def _turn_off(self, store: ObjectStore, error: StorageError, objects: int) -> None:
        """Ask a store that fails nothing more: each question might wait for its timeouts."""
        self._off[store.name] = error
        self.unchecked.add(store.name, objects, error)


def _finding(kind: FindingKind, store: ObjectStore, record: ObjectRecord, detail: str) -> Finding:
    if record.is_lost and kind != FindingKind.FOUND_AGAIN:
        detail = f"{detail} It is marked as lost."
    return Finding(kind, store.name, record.locator, detail, record, record.conversation_id, record.size_bytes)


def _orphan(store: ObjectStore, item: ListedObject, conversation_id: str, *, known: bool) -> Finding:
    detail = "No row points to it." if known else "No row points to it, and there is no such conversation."
    return Finding(FindingKind.ORPHAN, store.name, item.locator, detail, item, conversation_id, item.size_bytes)


def _without_row(
    store: ObjectStore, listed: Sequence[ListedObject], records: Sequence[ObjectRecord], owners: dict[str, str]
) -> list[ListedObject]:
    named = {record.locator for record in records}
    unnamed = [item for item in listed if item.locator not in named]
    wanted = {owners[item.locator] for item in unnamed}
    suspicious = [record for record in records if record.conversation_id in wanted and store.owns(record.locator)]
    spelled_otherwise = {_as_listed(store, record) for record in suspicious}
    return [item for item in unnamed if item.locator not in spelled_otherwise]


def _as_listed(store: ObjectStore, record: ObjectRecord) -> str | None:
    """A row may name the same place in other words: UPLOAD_DIR was relative, or the bucket had another name."""
    try:
        return store.locator(cast(ObjectKind, record.kind), store.key(record.locator))
    except AppError:
        return None


def _last_part(name: str) -> str:
    return name.rpartition("/")[2]


async def in_batches(items: AsyncIterator[T], size: int = BATCH) -> AsyncIterator[list[T]]:
    """Gather items into lists of `size`."""
    batch: list[T] = []
    async for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
