"""Runs jobs in this process: claims them, watches that they are still wanted, and writes how they ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

import anyio
import anyio.to_thread

from backend.concurrency.waiting import until_available
from backend.database import jobs
from backend.database.jobs import ENDED
from backend.database.models import Job, JobStatus
from backend.database.session import Database, database_errors
from backend.domain.jobs import MAX_CRASHES, Superseded
from backend.errors import DatabaseUnavailable, NotFound, StorageMisconfigured
from backend.observability.logs import log_context
from backend.observability.tracing import span
from backend.services.jobs.durable import DurableEngine, QueueLimit
from backend.services.jobs.heartbeat import Heartbeat
from backend.services.jobs.maintenance.announcements import QUEUE as WEBHOOKS
from backend.services.jobs.maintenance.announcements import Announcements
from backend.services.jobs.maintenance.objects import QUEUE as STORAGE
from backend.services.jobs.maintenance.objects import queue_of
from backend.services.jobs.maintenance.recovery import park
from backend.services.jobs.recording import OutOfReach, Recordings
from backend.services.jobs.running import RunningJobs
from backend.services.jobs.scheduler import Scheduler
from backend.services.jobs.service import LONG, QUEUES, SHORT, WORKFLOW, JobService
from backend.services.jobs.steps import DurableSteps, Interrupted, Interruption, JobProgress
from backend.services.processing.service import ProcessingService
from backend.services.speech.values import ignore_progress
from backend.services.storage import SpooledFile, StorageService

logger = logging.getLogger(__name__)

SERVICE_LIMITS = {WEBHOOKS: QueueLimit(8, poll_s=1.0), STORAGE: QueueLimit(2, poll_s=1.0)}
"""Queues of the work beside jobs."""
ALL_QUEUES = (*QUEUES, *SERVICE_LIMITS)


class JobRunner:
    """
    Args:
        listen: queues whose work this process does; none for a process that only accepts jobs.
        at_once: jobs of one queue at a time.
        poll_s: how long a job may wait to be seen.
    """

    def __init__(
        self,
        storage: StorageService,
        database: Database,
        durable: DurableEngine,
        processing: ProcessingService,
        service: JobService,
        running: RunningJobs,
        announcements: Announcements,
        scheduler: Scheduler,
        heartbeat: Heartbeat,
        *,
        listen: Sequence[str] = ALL_QUEUES,
        at_once: int = 1,
        poll_s: float = 0.1,
    ) -> None:
        self._storage = storage
        self._database = database
        self._durable = durable
        self._processing = processing
        self._service = service
        self._running = running
        self._announcements = announcements
        self._scheduler = scheduler
        self._heartbeat = heartbeat
        self._listen = tuple(listen)
        self._recordings = Recordings(storage, database)
        self._limits = {SHORT: QueueLimit(at_once, poll_s), LONG: QueueLimit(at_once, max(1.0, poll_s))}
        self._limits |= {self._queue(name): limit for name, limit in SERVICE_LIMITS.items()}
        self._handed_back: set[asyncio.Task[object]] = set()
        self._starting = asyncio.Lock()
        self._suspects = asyncio.Lock()
        self._started = False
        self._stopping = False
        durable.register(WORKFLOW, self._run)

    @property
    def worker_id(self) -> str:
        """What this process is called in the table of workers."""
        return self._heartbeat.identity.id

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the jobs that run in this process."""
        return self._running.ids

    def _queue(self, name: str) -> str:
        """What a queue that users know by this name is called on this machine."""
        return queue_of(self._heartbeat.identity.host) if name == STORAGE else name

    async def start(self) -> None:
        """Begin to run jobs, first those that dead processes left; does nothing the second time.

        Raises:
            DatabaseUnavailable
        """
        async with self._starting:
            if self._started:
                return
            with database_errors():
                await anyio.to_thread.run_sync(self._heartbeat.start)
                await self._durable.start(self._limits, [self._queue(name) for name in self._listen])
            self._started = True
            self._scheduler.start()

    async def stop(self) -> None:
        """Stop; jobs that run are handed back, and another process or the next start goes on with them."""
        if not self._started:
            return
        self._stopping = True
        await self._scheduler.stop()
        self._running.interrupt(Interruption.STOPPING)
        while self._running.ids:  # noqa: ASYNC110 - jobs end in many places
            await asyncio.sleep(0.02)
        await self._durable.stop()
        for handed_back in self._handed_back:
            handed_back.cancel()
        await asyncio.gather(*self._handed_back, return_exceptions=True)
        await anyio.to_thread.run_sync(self._heartbeat.stop)
        self._started = False

    async def drain(self, seconds: float, hurried: asyncio.Event) -> None:
        """Take no new jobs, and wait for those that run: so long, or until somebody is in a hurry."""
        self._stopping = True
        end = asyncio.get_running_loop().time() + seconds
        while self._running.ids and asyncio.get_running_loop().time() < end and not hurried.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    async def _run(self, job_id: str) -> None:
        """The workflow. Returns when the job has ended or is another's; stays pending if this process stops."""
        with log_context(job_id=job_id), span("job"):
            if not await self._try(job_id):
                await self._hand_back(job_id)
            await self._announcements.announce(job_id)

    async def _try(self, job_id: str) -> bool:
        """Returns whether nothing is left to do here; False: this process stops."""
        try:
            return await self._attempt(job_id, alone=False)
        except _Suspect:
            # If it is this recording that kills processes, no other suspect dies with it, to be given up in its place.
            async with self._suspects:
                return await self._attempt(job_id, alone=True)

    async def _attempt(self, job_id: str, *, alone: bool) -> bool:
        """As `_try`. Raises _Suspect."""
        if self._stopping:
            return False
        job = await self._claim(job_id, alone=alone)
        if job is None:
            return True
        progress = JobProgress(self._service.reports.get(job_id, ignore_progress))
        self._running.add(job_id, job.attempt, progress)
        if self._stopping:
            progress.interrupt(Interruption.STOPPING)
        try:
            await self._process(job, progress)
        except Interrupted as interrupted:
            if interrupted.reason == Interruption.STOPPING:
                await self._release(job, crashed=False)
                return False
            logger.info("job %s was stopped: it is not this process's any more", job_id)
        except Superseded as why:
            logger.info("job %s: %s", job_id, why)
            await self._end_unwanted(job)
        finally:
            self._running.remove(job_id)
            self._service.notify_ended(job_id)
        return True

    async def _claim(self, job_id: str, *, alone: bool) -> Job | None:
        """Make the job this process's, under a new attempt; None if there is nothing to do.

        Raises:
            _Suspect: an earlier attempt ended with its process, and this one would not be alone.
        """
        async with self._database.transaction() as session:
            try:
                job = await jobs.get_job(session, job_id, lock=True)
            except NotFound:
                return None
            if job.status in ENDED:
                return None
            if job.status == JobStatus.RUNNING:
                # Its process died, and the engine was quicker than whoever looks for dead ones.
                job.crashes += 1
            if job.crashes >= MAX_CRASHES:
                await park(session, job)
                return None
            if job.crashes and not alone:
                raise _Suspect
            job.attempt += 1
            job.status, job.worker_id = JobStatus.RUNNING, self.worker_id
            job.started_at = job.started_at or datetime.now(UTC)
        return job

    async def _process(self, job: Job, progress: JobProgress) -> None:
        recording: SpooledFile | None = None
        try:
            async with self._recordings.open(job, progress.check) as recording:
                await self._processing.process(job, recording, DurableSteps(progress))
        except (Interrupted, Superseded, asyncio.CancelledError):
            raise
        except OutOfReach as error:
            await self._pass_on(job, error, progress)
            return
        except DatabaseUnavailable as error:
            # No fault of the recording's: it is tried again for as long as it takes.
            logger.warning("job %s is queued again: %s", job.id, error)
            await until_available(lambda: self._release(job, crashed=False), progress.check)
            return
        except Exception as error:
            await self._fail(job, recording, error, progress)
        # Only what no row needs any more: the recording of a job that failed in the end stays.
        async with self._database.transaction() as session:
            ended = await jobs.get_job(session, job.id)
        if ended.recording != job.id:
            await self._storage.accepted.remove(job.id)

    async def _fail(self, job: Job, recording: SpooledFile | None, error: Exception, progress: JobProgress) -> None:
        await until_available(lambda: self._processing.fail(job, recording, error), progress.check)

    async def _pass_on(self, job: Job, error: OutOfReach, progress: JobProgress) -> None:
        """Queue a job again whose recording cannot be read here, for a process that may; give up after some tries."""
        if job.crashes + 1 >= MAX_CRASHES:
            await self._fail(job, None, StorageMisconfigured(str(error)), progress)
            return
        logger.warning("job %s is queued again for another process, because this one cannot read it: %s", job.id, error)
        await self._release(job, crashed=True)

    async def _end_unwanted(self, job: Job) -> None:
        """A job whose conversation was deleted counts as cancelled; one that is another attempt's is left alone."""
        values = {
            "status": JobStatus.CANCELLED,
            "worker_id": None,
            "recording": None,
            "finished_at": datetime.now(UTC),
        }
        async with self._database.transaction() as session:
            was_ours = await jobs.update_attempt(session, job.id, job.attempt, values)
        if was_ours:
            await self._storage.accepted.remove(job.id)

    async def _release(self, job: Job, *, crashed: bool) -> None:
        async with self._database.transaction() as session:
            await jobs.release(session, job.id, self.worker_id, crashed=crashed)

    async def _hand_back(self, job_id: str) -> None:
        """Never return: a workflow that returned is over. The engine's end cancels this."""
        logger.info("job %s is handed back", job_id)
        self._durable.give_up(job_id)
        self._handed_back.add(cast("asyncio.Task[object]", asyncio.current_task()))
        await asyncio.Event().wait()


class _Suspect(Exception):
    """The job's process has died before."""
