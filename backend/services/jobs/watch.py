"""Wakes the callers that wait for jobs when a job changes, with one query for all of them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

from backend.database import jobs
from backend.database.session import Database
from backend.domain.states.jobs import JobStatus
from backend.errors import DatabaseUnavailable
from backend.services.jobs.schedule.log import IDLE, Outcome
from backend.services.jobs.views import JobView
from backend.services.speech.values import StageProgress

PLACE_EVERY_LOOKS = 5
"""The place of a waiting job changes without its row, so its callers are woken at every fifth look."""


class JobWatch:
    """Asks nothing while no caller waits. The schedule calls `look`.

    Attributes:
        reports: by job, what to call at its stages if it runs in this process.
        on_first: what to call when a caller begins to wait and none did.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.reports: dict[str, StageProgress] = {}
        self.on_first: Callable[[], None] | None = None
        self._waiting: defaultdict[str, dict[asyncio.Future[None], jobs.Seen]] = defaultdict(dict)
        self._looks = 0

    def close(self) -> None:
        """Wake every caller that waits."""
        for job_id in [*self._waiting]:
            self.wake(job_id)

    async def change(self, job: JobView) -> None:
        """Return when a job's row may have changed."""
        changed = asyncio.get_running_loop().create_future()
        if not self._waiting and self.on_first is not None:
            self.on_first()
        self._waiting[job.id][changed] = (job.status, job.stage, job.progress, job.attempt)
        try:
            await changed
        finally:
            self._waiting[job.id].pop(changed, None)
            if not self._waiting[job.id]:
                del self._waiting[job.id]

    def wake(self, job_id: str) -> None:
        """Wake the callers that wait for a job, because it changed in this process."""
        for changed in self._waiting.get(job_id, {}):
            if not changed.done():
                changed.set_result(None)

    def end(self, job_id: str) -> None:
        """Wake the callers that wait for a job that has ended in this process, and report no more of its stages."""
        self.reports.pop(job_id, None)
        self.wake(job_id)

    async def look(self) -> Outcome:
        """Wake the callers whose job has changed.

        Raises:
            DatabaseUnavailable: every caller is woken, to ask the database.
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
