"""Attempts at a job: who owns it, from the claim to the end of the attempt. `runner.py` says when to claim.

`backend.services.processing` makes and writes what an attempt finds out: the result or the failure.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from backend.concurrency.waiting import until_available
from backend.database import conversations, jobs
from backend.database.models import Job
from backend.database.session import Database
from backend.domain.jobs import Superseded, error_to_json
from backend.domain.states.conversations import ConversationStatus
from backend.domain.states.jobs import MAX_CRASHES, JobStatus, Turn, crashes_at_claim, turn_of
from backend.errors import DatabaseUnavailable, EngineUnavailable, ModelMissing, ProcessingFailed, StorageMisconfigured
from backend.services.jobs.recording import OutOfReach, Recordings
from backend.services.jobs.steps import DurableSteps, Interrupted, Interruption, JobProgress
from backend.services.processing.service import ProcessingService
from backend.services.storage import SpooledFile
from backend.services.storage.spool.accepted import AcceptedRecordings

logger = logging.getLogger(__name__)


class Suspect(Exception):
    """An earlier attempt at the job died with its process, so this one may run only beside no other suspect."""


class Attempts:
    """The attempts of one process.

    Args:
        worker_id: what the process is called in the table of workers.
    """

    def __init__(
        self,
        recordings: Recordings,
        accepted: AcceptedRecordings,
        database: Database,
        processing: ProcessingService,
        *,
        worker_id: str,
    ) -> None:
        self._recordings = recordings
        self._accepted = accepted
        self._database = database
        self._processing = processing
        self._worker_id = worker_id

    async def claim(self, job_id: str, *, alone: bool) -> Job | None:
        """Make the job this process's, under a new attempt; None if there is nothing to do.

        Args:
            job_id: handed out by a queue.
            alone: whether no other suspect runs in this process.

        Raises:
            Suspect
            DatabaseUnavailable
        """
        async with self._database.transaction() as session:
            job = await jobs.find_job(session, job_id, lock=True)
            if job is None:
                return None
            crashes = crashes_at_claim(job.status, job.crashes)
            match turn_of(job.status, crashes):
                case Turn.SKIP:
                    return None
                case Turn.PARK:
                    await _park(session, job, crashes)
                    return None
                case Turn.RUN_ALONE if not alone:
                    raise Suspect
            return await jobs.claim(session, job, self._worker_id, crashes=crashes, at=datetime.now(UTC))

    async def run(self, job: Job, progress: JobProgress) -> bool:
        """Run a claimed job.

        Returns:
            Whether nothing is left to do here. False: this process stops, and the job waits again.

        Raises:
            DatabaseUnavailable: how the attempt ended could not be written.
        """
        try:
            await self._process(job, progress)
        except Interrupted as interrupted:
            if interrupted.reason == Interruption.STOPPING:
                await self.requeue(job, crashed=False)
                return False
            logger.info("job %s was stopped: it does not belong to this process any more", job.id)
        except Superseded as why:
            logger.info("job %s: %s", job.id, why)
            await self._abandon(job)
        return True

    async def requeue(self, job: Job, *, crashed: bool) -> Job | None:
        """Queue a job again whose attempt ends without a result; None if it is not this attempt's."""
        async with self._database.transaction() as session:
            return await jobs.requeue(session, job.id, job.attempt, crashed=crashed)

    async def requeue_own(self, job_id: str) -> bool:
        """Queue a job again that this process has and does not work on; returns whether the job waits."""
        async with self._database.transaction() as session:
            job = await jobs.find_job(session, job_id, lock=True)
            if job is not None and job.worker_id == self._worker_id:
                job = await jobs.requeue(session, job.id, job.attempt, crashed=False)
        return job is not None and job.status == JobStatus.QUEUED

    async def take_over(self, job: Job) -> bool:
        """Take a job from a process that died; returns whether the job waits."""
        async with self._database.transaction() as session:
            fresh = await jobs.requeue(session, job.id, job.attempt, crashed=True)
            if fresh is not None and turn_of(fresh.status, fresh.crashes) == Turn.PARK:
                await _park(session, fresh, fresh.crashes)
                return False
        return fresh is not None

    async def _process(self, job: Job, progress: JobProgress) -> None:
        """Process the recording; the result or the failure is written at the end. Raises Interrupted, Superseded."""
        recording: SpooledFile | None = None
        try:
            async with self._recordings.open(job, progress.check) as recording:
                await self._processing.process(job, recording, DurableSteps(progress))
        except Superseded:
            raise
        except Exception as error:
            await self._end(job, recording, error, progress)
        else:
            await self._accepted.remove(job.id)

    async def _end(self, job: Job, recording: SpooledFile | None, error: Exception, progress: JobProgress) -> None:
        """Queue the job again if the recording may yet be processed, else write why it failed."""
        out_of_reach = isinstance(error, OutOfReach | ModelMissing)
        if isinstance(error, DatabaseUnavailable) or (out_of_reach and job.crashes + 1 < MAX_CRASHES):
            lack = "does not have its model" if isinstance(error, ModelMissing) else "cannot read it"
            why = f" for another process, because this one {lack}" if out_of_reach else ""
            logger.warning("job %s is queued again%s: %s", job.id, why, error)
            await until_available(lambda: self.requeue(job, crashed=out_of_reach), progress.check)
            return
        cause = _lasting(error)
        if await self._processing.fail(job, recording, cause, progress.check) != job.id:
            await self._accepted.remove(job.id)

    async def _abandon(self, job: Job) -> None:
        """End a job whose conversation was deleted; one that is another attempt's is left alone."""
        async with self._database.transaction() as session:
            abandoned = await jobs.abandon(session, job.id, job.attempt, at=datetime.now(UTC))
        if abandoned is not None:
            await self._accepted.remove(job.id)


def _lasting(error: Exception) -> Exception:
    """Why a job has failed that no process could do. The recording is kept: with another model, or an operator's help,
    a retry may do it."""
    if isinstance(error, OutOfReach):
        return StorageMisconfigured(str(error))
    return EngineUnavailable(str(error)) if isinstance(error, ModelMissing) else error


async def _park(session: AsyncSession, job: Job, crashes: int) -> None:
    """Give up on a recording that kills the processes that work on it."""
    error = ProcessingFailed(
        f"The process that worked on this recording died {crashes} times at the same step, so it is not tried again "
        "automatically. The server's log of that time says why; `POST /jobs/{id}/retry` tries again.",
        job.conversation_id,
    )
    now = datetime.now(UTC)
    await jobs.park(session, job, error=error_to_json(error), crashes=crashes, at=now)
    logger.error("job %s: %s", job.id, error)
    row = await conversations.find_conversation(session, job.conversation_id)
    if row is not None:
        row.status, row.error, row.completed_at = ConversationStatus.FAILED, str(error), now
