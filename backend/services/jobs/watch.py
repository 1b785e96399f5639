"""JobWatch: tells clients that wait for jobs when those change, by one question to the database for all of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from backend.database import jobs
from backend.database.models import Job, JobStatus
from backend.database.session import Database
from backend.errors import DatabaseUnavailable
from backend.services.jobs.schedule_log import IDLE, Outcome

PLACE_EVERY_LOOKS = 5
"""A client that waits for a queued job learns its place in the queue at every fifth look."""


class JobWatch:
    """Asks nothing while no client waits. `look` is called again and again by the schedule."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: defaultdict[str, dict[asyncio.Future[None], jobs.Seen]] = defaultdict(dict)
        self._looks = 0

    def close(self) -> None:
        """Wake all who wait."""
        for job_id in [*self._waiting]:
            self.wake(job_id)

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

    async def look(self) -> Outcome:
        """Wake those whose job has changed.

        Raises:
            DatabaseUnavailable: all are woken, to ask for themselves.
        """
        if not self._waiting:
            return IDLE
        self._looks += 1
        try:
            async with self._database.transaction() as session:
                found = await jobs.list_seen(session, [*self._waiting])
        except DatabaseUnavailable:
            self.close()
            raise
        for job_id, waiters in [*self._waiting.items()]:
            now = found.get(job_id)
            waits = now is not None and now[0] == JobStatus.QUEUED and self._looks % PLACE_EVERY_LOOKS == 0
            if waits or any(was != now for was in waiters.values()):
                self.wake(job_id)
        return Outcome({"jobs": len(found)})
