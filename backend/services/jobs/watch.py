"""Tells whoever waits for jobs when something about them changes: one question to the database for all who wait."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import Self

from backend.concurrency.rounds import Rounds
from backend.database import jobs
from backend.database.models import Job
from backend.database.session import Database
from backend.domain.job_states import JobStatus
from backend.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)

POLL_S = 0.5
PLACE_EVERY_LOOKS = 5
"""How often whoever waits for a job that waits itself looks at its place in the queue."""


class JobWatch:
    """Works while its context is open, and asks nothing while nobody waits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: defaultdict[str, dict[asyncio.Future[None], jobs.Seen]] = defaultdict(dict)
        self._looks = 0
        self._rounds = Rounds("looking at jobs", self._look, lambda: POLL_S)

    async def __aenter__(self) -> Self:
        self._rounds.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        for job_id in [*self._waiting]:
            self.wake(job_id)
        await self._rounds.stop()

    async def change(self, job: Job) -> None:
        """Return when a job's row may be another one than this."""
        changed = asyncio.get_running_loop().create_future()
        self._waiting[job.id][changed] = jobs.seen(job)
        try:
            await changed
        finally:
            self._waiting[job.id].pop(changed, None)
            if not self._waiting[job.id]:
                del self._waiting[job.id]

    def wake(self, job_id: str) -> None:
        """Something has happened to a job in this process."""
        for changed in self._waiting.get(job_id, {}):
            if not changed.done():
                changed.set_result(None)

    async def _look(self) -> None:
        if not self._waiting:
            return
        self._looks += 1
        try:
            async with self._database.transaction() as session:
                found = await jobs.list_seen(session, [*self._waiting])
        except DatabaseUnavailable as error:
            logger.warning("whoever waits for a job learns it from the database: %s", error)
            found = {}
        for job_id, waiters in [*self._waiting.items()]:
            now = found.get(job_id)
            waits = now is not None and now[0] == JobStatus.QUEUED and self._looks % PLACE_EVERY_LOOKS == 0
            if waits or any(was != now for was in waiters.values()):
                self.wake(job_id)
