"""Relocation: UPLOAD_DIR was moved, and the rows follow once every object is found in the new folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from backend.concurrency.rate import RateLimit
from backend.database import reconciliation as rows
from backend.database.reconciliation import ObjectRecord
from backend.database.session import Database
from backend.errors import AppError, Conflict, InvalidInput
from backend.services.storage import ObjectStore, Stores
from backend.services.storage.integrity import sha256_of
from backend.services.storage.values import ObjectKind

MAX_EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class Absence:
    """An object that is not in the new folder as its row says, by its old locator."""

    locator: str
    why: str


@dataclass(frozen=True, slots=True)
class RelocationReport:
    """What was changed, or, if `applied` is false, would be.

    Attributes:
        new: what the locators begin with from now on.
        missing: how many objects are not in the new folder; nothing is changed while there is one.
        examples: some of them.
    """

    applied: bool
    new: str
    objects: int = 0
    bytes: int = 0
    missing: int = 0
    examples: tuple[Absence, ...] = ()

    @property
    def exit_code(self) -> int:
        """0: all objects are there; 1: some are not."""
        return 1 if self.missing else 0

    def without(self, locator: str, why: str) -> RelocationReport:
        """The report with one object more that is missing."""
        examples = (*self.examples, Absence(locator, why))[:MAX_EXAMPLES]
        return replace(self, missing=self.missing + 1, examples=examples)


class Relocation:
    """
    Args:
        stores: have the objects in the new folder.
        old: the folder as UPLOAD_DIR named it before.
        deep: compare hashes, not only sizes.
        batch: objects that are looked at together.
    """

    def __init__(self, stores: Stores, database: Database, old: str, *, deep: bool, batch: int) -> None:
        self._stores = stores
        self._database = database
        self._old = old.rstrip("/") + "/"
        self._deep = deep
        self._batch = batch

    async def run(self, *, apply: bool) -> RelocationReport:
        """Look for every object of the old folder in the new one, and change the rows in one transaction.

        Raises:
            Conflict: a process may write to the old folder.
            InvalidInput: no row names the old folder, or it is the new one.
            DatabaseUnavailable
        """
        if apply:
            await self._refuse_company()
        [store] = self._stores.local
        report = RelocationReport(applied=False, new=_prefix(store))
        if report.new == self._old:
            raise InvalidInput(f"UPLOAD_DIR is {self._old} now, too. Set it to the new folder first.")
        report = await self._look(store, report)
        if not report.objects:
            raise InvalidInput(await self._explain_nothing(store))
        if apply and not report.missing:
            async with self._database.transaction() as session:
                await rows.move_all(session, store.name, self._old, report.new)
            return replace(report, applied=True)
        return report

    async def _look(self, store: ObjectStore, report: RelocationReport) -> RelocationReport:
        last = 0
        while True:
            async with self._database.transaction() as session:
                page = await rows.list_records_below(session, store.name, self._old, after=last, limit=self._batch)
            if not page:
                return report
            last = page[-1].id
            report = replace(
                report,
                objects=report.objects + len(page),
                bytes=report.bytes + sum(record.size_bytes for record in page),
            )
            for record, why in await self._absent(store, page):
                report = report.without(record.locator, why)

    async def _absent(self, store: ObjectStore, page: Sequence[ObjectRecord]) -> list[tuple[ObjectRecord, str]]:
        new = [self._new(store, record) for record in page]
        sizes = await store.find_sizes(new)
        absent = []
        for record, locator in zip(page, new, strict=True):
            if why := await self._complaint(store, record, locator, sizes.get(locator)):
                absent.append((record, why))
        return absent

    async def _complaint(
        self, store: ObjectStore, record: ObjectRecord, locator: str, size: int | AppError | None
    ) -> str:
        if size is None:
            return f"{locator} does not exist."
        if isinstance(size, AppError):
            return str(size)
        if size != record.size_bytes:
            return f"{locator} has {size} bytes instead of {record.size_bytes}."
        try:
            if self._deep and await sha256_of(store, locator, RateLimit(0)) != record.sha256:
                return f"The SHA-256 of {locator} differs from its row."
        except AppError as error:
            return str(error)
        return ""

    def _new(self, store: ObjectStore, record: ObjectRecord) -> str:
        return store.locator(cast(ObjectKind, record.kind), record.locator.removeprefix(self._old))

    async def _refuse_company(self) -> None:
        async with self._database.transaction() as session:
            names = await rows.list_beating(session)
        if names:
            raise Conflict(
                f"{', '.join(names)} may write to the old folder. Stop servers and workers first; one that was killed "
                "counts for 15 s."
            )

    async def _explain_nothing(self, store: ObjectStore) -> str:
        async with self._database.transaction() as session:
            found = await rows.find_outside(session, store.name, _prefix(store))
        there = f"; one of them is {found}" if found else ": all objects on the disk are below UPLOAD_DIR"
        return f"No locator begins with {self._old}{there}."


def _prefix(store: ObjectStore) -> str:
    key = "conv/2000/01/01/name"
    return store.locator("audio", key).removesuffix(key)
