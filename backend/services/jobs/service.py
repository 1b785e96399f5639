"""Jobs from outside: asking how far one is, waiting for it, cancelling it, trying again.

`intake.py` accepts a recording; `runner.py` runs its job; `maintenance.py` requeues lost ones and deletes leftovers.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from backend.database import conversations, jobs, objects
from backend.database.models import Conversation, Job
from backend.database.session import Database
from backend.domain.jobs import error_from_json
from backend.domain.states.conversations import ConversationStatus
from backend.domain.states.jobs import ENDED, JobStatus
from backend.errors import Conflict, DatabaseUnavailable, NotFound
from backend.services.conversations.views import DetailedConversation, detail_of
from backend.services.jobs.durable.engine import DurableEngine
from backend.services.jobs.queue import JobQueue
from backend.services.jobs.runner import JobRunner
from backend.services.jobs.views import JobView, view_of
from backend.services.jobs.watch import JobWatch
from backend.services.storage import StorageService
from backend.services.storage.spool.accepted import AcceptedRecordings

logger = logging.getLogger(__name__)


class JobService:
    def __init__(
        self,
        storage: StorageService,
        accepted: AcceptedRecordings,
        database: Database,
        durable: DurableEngine,
        queue: JobQueue,
        watch: JobWatch,
        runner: JobRunner,
    ) -> None:
        self._storage = storage
        self._accepted = accepted
        self._database = database
        self._durable = durable
        self._queue = queue
        self._watch = watch
        self._runner = runner

    async def get(self, job_id: str) -> JobView:
        """Raises NotFound."""
        async with self._database.transaction() as session:
            job = await jobs.get_job(session, job_id)
            waits = job.status == JobStatus.QUEUED
            return view_of(job, 1 + await jobs.count_before(session, job) if waits else None)

    async def list(self, *, status: JobStatus | None, limit: int, offset: int) -> tuple[Sequence[JobView], int]:
        """A page, newest first, and the number of all."""
        async with self._database.transaction() as session:
            rows, total = await jobs.list_jobs(session, status=status, limit=limit, offset=offset)
            return [view_of(row) for row in rows], total

    async def wait(self, job_id: str) -> JobView:
        """The job when it has completed.

        Raises:
            AppError: why it failed, or Conflict if it was cancelled.
        """
        job = await self.get(job_id)
        while job.status not in ENDED:
            await self._watch.change(job)
            job = await self.get(job_id)
        if job.status == JobStatus.CANCELLED:
            raise Conflict("The job was cancelled, or its conversation was deleted while it was processed.")
        if job.status == JobStatus.FAILED:
            raise error_from_json(job.error or {})
        return job

    async def result(self, job: JobView) -> tuple[DetailedConversation, JobView]:
        """The conversation of a job that has completed, with everything, and the job.

        Raises:
            NotFound: the conversation was deleted since.
        """
        async with self._database.transaction() as session:
            row = await conversations.get_conversation(session, job.conversation_id, detailed=True)
            return detail_of(row), job

    async def follow(self, job_id: str) -> AsyncGenerator[JobView, None]:
        """The job's state now and whenever it has changed, until it has ended.

        Raises:
            NotFound
        """
        before: tuple[object, ...] | None = None
        while True:
            job = await self.get(job_id)
            now = (job.status, job.stage, job.progress, job.position)
            if now != before:
                yield job
                before = now
            if job.status in ENDED:
                return
            await self._watch.change(job)

    async def figures(self) -> Sequence[tuple[str, str, int, float]]:
        """Queue, status, number and age in seconds of the oldest of the jobs that wait or run."""
        now = datetime.now(UTC)
        async with self._database.transaction() as session:
            found = await jobs.queue_figures(session)
        return [(queue, status, count, (now - oldest).total_seconds()) for queue, status, count, oldest in found]

    async def cancel(self, job_id: str) -> JobView:
        """Stop a job and forget its recording; one that has ended is left as it is.

        Raises:
            NotFound
            Conflict: it has completed or failed.
        """
        async with self._database.transaction() as session:
            job = await jobs.get_job(session, job_id, lock=True)
            if job.status == JobStatus.CANCELLED:
                return view_of(job)
            if job.status in ENDED:
                raise Conflict(f"The job has {job.status} already; delete its conversation instead.")
            await jobs.cancel(session, job.id, at=datetime.now(UTC))
            locators = await objects.locators_of(session, job.conversation_id)
            await _forget_conversation(session, job.conversation_id)
        await self._runner.start()
        try:
            await self._durable.cancel(job_id)
        except DatabaseUnavailable as error:
            # Its row says so, and the process that has it or takes it looks there.
            logger.warning("job %s is cancelled, but stays in its queue for now: %s", job_id, error)
        await self._accepted.remove(job_id)
        for locator in locators:
            await self._storage.delete(locator)
        self._watch.end(job_id)
        return view_of(job)

    async def retry(self, job_id: str) -> JobView:
        """Queue a failed job again.

        Raises:
            NotFound
            Conflict: it has not failed, or its recording is gone.
        """
        async with self._database.transaction() as session:
            job = await jobs.get_job(session, job_id, lock=True)
            if job.status != JobStatus.FAILED:
                raise Conflict(f"The job is {job.status}; only a failed one can be tried again.")
            if job.recording is None:
                raise Conflict("The recording was refused and not kept. Send it again.")
            row = await _conversation_of(session, job)
            row.status, row.error, row.completed_at = ConversationStatus.PROCESSING, None, None
            await jobs.retry(session, job.id)
        await self._runner.start()
        await self._durable.forget([job_id])
        await self._queue.add(job)
        return view_of(job)


async def _conversation_of(session: AsyncSession, job: Job) -> Conversation:
    try:
        return await conversations.get_conversation(session, job.conversation_id, lock=True)
    except NotFound as error:
        raise Conflict("The job's conversation was deleted. Send the recording again.") from error


async def _forget_conversation(session: AsyncSession, conversation_id: str) -> None:
    try:
        await conversations.remove(session, await conversations.get_conversation(session, conversation_id, lock=True))
    except NotFound:
        logger.debug("%s was deleted already", conversation_id)
