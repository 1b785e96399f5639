"""EndedJobs: deletes what jobs leave behind when they have ended: checkpoints, old rows, recordings in the spool."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from backend.database import jobs
from backend.database.session import Database
from backend.domain.lifecycle import Retention
from backend.domain.states.jobs import ENDED, JobStatus
from backend.services.jobs.durable import DurableEngine
from backend.services.jobs.schedule.log import IDLE, Outcome
from backend.services.storage.spool.accepted import AcceptedRecordings

logger = logging.getLogger(__name__)

AT_ONCE = 500


class EndedJobs:
    """
    Args:
        ended: how long rows of ended jobs are kept.
        recordings: how long a recording in the spool is left alone that no job names.
    """

    def __init__(
        self,
        accepted: AcceptedRecordings,
        database: Database,
        durable: DurableEngine,
        *,
        ended: Retention,
        recordings: Retention,
    ) -> None:
        self._accepted = accepted
        self._database = database
        self._durable = durable
        self._ended = ended
        self._recordings = recordings

    async def forget(self) -> Outcome:
        """Delete checkpoints of workflows that ended, and rows of jobs that ended long ago.

        Raises:
            DatabaseUnavailable
        """
        ended = await self._durable.ended(limit=AT_ONCE)
        async with self._database.transaction() as session:
            states = await jobs.attempts_of(session, ended)
            rows = await jobs.delete_ended(session, self._ended.expiry(datetime.now(UTC)))
        done = [job_id for job_id in ended if states.get(job_id, (JobStatus.COMPLETED, 0))[0] in ENDED]
        if done:
            await self._durable.forget(done)
        return Outcome({"workflows": len(done), "rows": rows}) if done or rows else IDLE

    async def sweep_recordings(self) -> Outcome:
        """Delete recordings in the spool that no job needs: their process died before or after it wrote the job.

        Other databases may have jobs with recordings in the same folder; theirs are left alone.

        Raises:
            StorageError
            DatabaseUnavailable
        """
        found = await self._accepted.names(older_than_s=self._recordings.keep_s)
        if not found:
            return IDLE
        mark = await self._database.mark()
        ours = {name for name in found if name.startswith(f"job_{mark}")}
        async with self._database.transaction() as session:
            wanted = await jobs.list_spooled(session)
        for name in ours - wanted:
            logger.info("%s was left in the spool by a process that died, and is deleted", name)
            await self._accepted.remove(name)
        return Outcome({"recordings": len(ours - wanted)}) if ours - wanted else IDLE
