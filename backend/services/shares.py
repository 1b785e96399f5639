"""Shares: what one API key may hold at once, so that it leaves room for the others.

Open uploads and jobs are counted in the database, so all processes of an installation share them. Event streams and
the bytes of running requests are counted in each process.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from backend.concurrency.places import Places, Taken
from backend.database import jobs, uploads
from backend.database.session import Database
from backend.domain.access import HeldUploads, ShareLimits
from backend.errors import ShareUsedUp, TooManyJobs
from backend.services.storage import StorageService

LOOK_EVERY_BYTES = 32 * 1024**2
"""How often a body without an announced size is held against its key's share."""


@dataclass(slots=True, eq=False)
class _Body:
    """A recording that is being received, in one request."""

    owner: str
    size_bytes: int
    arrived_bytes: int = 0

    def held(self) -> HeldUploads:
        return HeldUploads(0, self.arrived_bytes, max(0, self.size_bytes - self.arrived_bytes))


class Shares:
    """
    Args:
        storage: says how much space the disk has for uploads.
        limits: the wholes, and the part of each that one key may have.
    """

    def __init__(self, storage: StorageService, database: Database, limits: ShareLimits) -> None:
        self._storage = storage
        self._database = database
        self._limits = limits
        self._streams = Places(limits.streams, limits.own_streams)
        self._bodies: set[_Body] = set()
        self._opening = asyncio.Lock()

    async def check_jobs(self, owner: str) -> None:
        """Check that a key may have another job.

        Raises:
            TooManyJobs
        """
        async with self._database.transaction() as session:
            total = await jobs.count_active(session)
            own = await jobs.count_active(session, owner=owner)
        if total >= self._limits.jobs:
            raise TooManyJobs(
                f"{total} recordings are waiting already (MAX_QUEUED_JOBS). Send this one again in a while."
            )
        if own >= self._limits.own_jobs:
            raise TooManyJobs(
                f"{own} of your recordings are waiting already (MAX_QUEUED_JOBS_PER_KEY, KEY_SHARE). Send this one "
                "again in a while."
            )

    @contextmanager
    def stream(self, owner: str) -> Iterator[None]:
        """Have an event stream while the context is open.

        Raises:
            ShareUsedUp
        """
        reason = self._streams.find_reason(owner)
        if reason is Taken.OWN:
            raise ShareUsedUp(
                f"This API key has {self._streams.own} event streams open already (MAX_EVENT_STREAMS, KEY_SHARE). "
                "Close one, or ask GET /jobs/{id} instead."
            )
        if reason is Taken.ALL:
            raise ShareUsedUp(
                f"{self._streams.count} event streams are open already (MAX_EVENT_STREAMS). Ask GET /jobs/{{id}} "
                "instead, or try again."
            )
        self._streams.take(owner)
        try:
            yield
        finally:
            self._streams.free(owner)

    @asynccontextmanager
    async def opening(self, owner: str, disk_bytes: int | None) -> AsyncGenerator[None, None]:
        """Open an upload inside this context, one after the other, so that each is counted before the next.

        Args:
            owner: whose it is.
            disk_bytes: how much of it will come to the disk of this machine, if that is known.

        Raises:
            ShareUsedUp: there are too many already, or they hold too much of the disk.
            StorageFull: with what was promised before, there is no space for it.
        """
        async with self._opening:
            held = await self._held()
            self._check_count(owner, held)
            await self._check_bytes(owner, disk_bytes or 0, held)
            yield

    @asynccontextmanager
    async def receiving(
        self, owner: str, size_bytes: int | None, chunks: AsyncIterator[bytes]
    ) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """Receive a recording in one request; gives its bytes, counted.

        Raises:
            ShareUsedUp: its key holds too much of the disk; raised by the chunks as well if no size was announced.
            StorageFull: with what was promised before, there is no space for it.
        """
        await self._check_bytes(owner, size_bytes or 0, await self._held())
        body = _Body(owner, size_bytes or 0)
        self._bodies.add(body)
        try:
            yield self._counted(body, chunks)
        finally:
            self._bodies.discard(body)

    async def check_held(self, owner: str) -> None:
        """Check that a key holds no more of the disk than it may, while an upload of unknown size grows.

        Raises:
            ShareUsedUp
            StorageFull
        """
        await self._check_bytes(owner, 0, await self._held())

    async def _counted(self, body: _Body, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        look_at_bytes = LOOK_EVERY_BYTES
        async for chunk in chunks:
            body.arrived_bytes += len(chunk)
            if not body.size_bytes and body.arrived_bytes >= look_at_bytes:
                look_at_bytes += LOOK_EVERY_BYTES
                await self.check_held(body.owner)
            yield chunk

    async def _held(self) -> Mapping[str, HeldUploads]:
        """By owner."""
        async with self._database.transaction() as session:
            held = defaultdict(HeldUploads, await uploads.list_held(session))
        for body in self._bodies:
            held[body.owner] += body.held()
        return held

    def _check_count(self, owner: str, held: Mapping[str, HeldUploads]) -> None:
        own = held[owner].count if owner in held else 0
        total = sum(each.count for each in held.values())
        if own >= self._limits.own_uploads < self._limits.uploads:
            raise ShareUsedUp(
                f"This API key has {own} uploads open already (MAX_OPEN_UPLOADS, KEY_SHARE). Complete or delete some: "
                "GET /uploads lists them."
            )
        if total >= self._limits.uploads:
            raise ShareUsedUp(
                f"{total} uploads are open already (MAX_OPEN_UPLOADS). Try again later, or delete some: GET /uploads "
                "lists them."
            )

    async def _check_bytes(self, owner: str, size_bytes: int, held: Mapping[str, HeldUploads]) -> None:
        total = sum(held.values(), HeldUploads())
        await self._storage.check_space(size_bytes, promised_bytes=total.missing_bytes)
        spare_bytes = await self._storage.spare_bytes()
        if self._limits.part >= 1 or spare_bytes is None:
            return
        share_bytes = self._limits.share_of(spare_bytes + total.arrived_bytes)
        own_bytes = held[owner].promised_bytes if owner in held else 0
        if own_bytes + size_bytes > share_bytes:
            raise ShareUsedUp(
                f"The uploads of this API key would hold {own_bytes + size_bytes} bytes; its share of the disk is "
                f"{share_bytes} (KEY_SHARE). Complete or delete some: GET /uploads lists them."
            )
