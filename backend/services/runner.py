"""Runs jobs in this process: claims them, watches that they are still wanted, and writes how they ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import cast

import anyio
import anyio.to_thread
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database import jobs, repositories
from backend.database.jobs import ENDED
from backend.database.models import ConversationStatus, Job, JobStatus
from backend.database.session import Database, database_errors
from backend.domain.jobs import MAX_CRASHES, error_to_json
from backend.errors import AppError, NotFound, ProcessingFailed
from backend.services.background import LIMITS as BACKGROUND_LIMITS
from backend.services.background import Background
from backend.services.concurrency import until_available
from backend.services.durable import DurableEngine, QueueLimit
from backend.services.jobs import QUEUES, WORKFLOW, JobService
from backend.services.logs import log_context
from backend.services.processing import ProcessingService, Superseded
from backend.services.speech import ignore_progress
from backend.services.steps import DurableSteps, Interrupted, Interruption, JobProgress
from backend.services.storage import SpooledFile, StorageService
from backend.services.tracing import span
from backend.services.workers import Heartbeat, ProcessIdentity, is_dead

logger = logging.getLogger(__name__)

WATCH_EVERY_S = 0.5
LOOK_AROUND_EVERY_S = 5.0
ALL_QUEUES = (*QUEUES, *BACKGROUND_LIMITS)


class JobRunner:
    """
    Args:
        listen: queues whose work this process does; none for a process that only accepts jobs.
        at_once: jobs of one queue at a time.
        keep_days: how long rows of ended jobs are kept.
    """

    def __init__(
        self,
        storage: StorageService,
        database: Database,
        durable: DurableEngine,
        processing: ProcessingService,
        service: JobService,
        background: Background,
        identity: ProcessIdentity,
        *,
        listen: Sequence[str] = ALL_QUEUES,
        at_once: int = 1,
        keep_days: float = 30,
    ) -> None:
        self._storage = storage
        self._database = database
        self._durable = durable
        self._processing = processing
        self._service = service
        self._identity = identity
        self._background = background
        self._listen = tuple(listen)
        self._limits = {name: QueueLimit(at_once) for name in QUEUES}
        self._limits |= {background.queue(name): limit for name, limit in BACKGROUND_LIMITS.items()}
        self._keep_days = keep_days
        self._heartbeat = Heartbeat(database.url, identity, self._listen)
        self._running: dict[str, tuple[int, JobProgress]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._handed_back: set[asyncio.Task[object]] = set()
        self._starting = asyncio.Lock()
        self._started = False
        self._stopping = False
        durable.register(WORKFLOW, self._run)

    @property
    def worker_id(self) -> str:
        """What this process is called in the table of workers."""
        return self._identity.id

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the jobs that run in this process."""
        return tuple(self._running)

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
            await self._durable.start(self._limits, [self._background.queue(name) for name in self._listen])
            self._started = True
            self._tasks = [
                asyncio.create_task(_for_ever(WATCH_EVERY_S, self._watch)),
                asyncio.create_task(_for_ever(LOOK_AROUND_EVERY_S, self._look_around)),
            ]

    async def stop(self) -> None:
        """Stop; jobs that run are handed back, and another process or the next start goes on with them."""
        if not self._started:
            return
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, progress in self._running.values():
            progress.interrupt(Interruption.STOPPING)
        while self._running:
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
        while self._running and asyncio.get_running_loop().time() < end and not hurried.is_set():
            await asyncio.sleep(0.1)

    async def _run(self, job_id: str) -> None:
        """The workflow. Returns when the job has ended or is another's; stays pending if this process stops."""
        with log_context(job_id=job_id), span("job"):
            await self._run_claimed(job_id)

    async def _run_claimed(self, job_id: str) -> None:
        job = None if self._stopping else await self._claim(job_id)
        if self._stopping:
            await self._hand_back(job_id)
        if job is None:
            return
        progress = JobProgress(self._service.reports.get(job_id, ignore_progress))
        self._running[job_id] = (job.attempt, progress)
        try:
            await self._process(job, progress)
        except Interrupted as interrupted:
            if interrupted.reason == Interruption.STOPPING:
                await self._release(job)
                self._running.pop(job_id, None)
                await self._hand_back(job_id)
            logger.info("job %s was stopped: it is not this process's any more", job_id)
        except Superseded as why:
            logger.info("job %s: %s", job_id, why)
            await self._end_unwanted(job)
        finally:
            self._running.pop(job_id, None)
            self._service.notify_ended(job_id)
        await self._background.announce(job_id)

    async def _claim(self, job_id: str) -> Job | None:
        """Make the job this process's, under a new attempt; None if there is nothing to do."""
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
                await self._park(session, job)
                return None
            job.attempt += 1
            job.status, job.worker_id = JobStatus.RUNNING, self._identity.id
            job.started_at = job.started_at or datetime.now(UTC)
        return job

    async def _process(self, job: Job, progress: JobProgress) -> None:
        recording: SpooledFile | None = None
        try:
            async with self._recording_of(job) as recording:
                await self._processing.process(job, recording, DurableSteps(progress))
        except (Interrupted, Superseded, asyncio.CancelledError):
            raise
        except Exception as error:
            await self._fail(job, recording, error, progress)
        # Only what no row needs any more: the recording of a job that failed in the end stays.
        async with self._database.transaction() as session:
            ended = await jobs.get_job(session, job.id)
        if ended.recording != job.id:
            await self._storage.kept.remove(job.id)

    async def _fail(self, job: Job, recording: SpooledFile | None, error: Exception, progress: JobProgress) -> None:
        await until_available(lambda: self._processing.fail(job, recording, error), progress.check)

    @asynccontextmanager
    async def _recording_of(self, job: Job) -> AsyncGenerator[SpooledFile, None]:
        """The recording as a local file: from the spool, or fetched from where it was stored.

        Raises:
            StorageError: it is not there, and why.
        """
        if job.recording is None or job.recording == job.id:
            yield await self._storage.kept.get(job.id, job.size_bytes, job.sha256)
            return
        async with self._storage.spool(self._storage.open(job.recording)) as spooled:
            if spooled.sha256 != job.sha256:
                raise ProcessingFailed(
                    f"{job.recording} is not what was uploaded: its SHA-256 is another one.", job.conversation_id
                )
            yield spooled

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
            await self._storage.kept.remove(job.id)

    async def _release(self, job: Job) -> None:
        async with self._database.transaction() as session:
            await jobs.release(session, job.id, self._identity.id, crashed=False)

    async def _hand_back(self, job_id: str) -> None:
        """Never return: a workflow that returned is over. The engine's end cancels this."""
        logger.info("job %s is handed back", job_id)
        self._handed_back.add(cast("asyncio.Task[object]", asyncio.current_task()))
        await asyncio.Event().wait()

    async def _watch(self) -> None:
        """Write how far the running jobs are, and stop those that are not this process's any more."""
        running = dict(self._running)
        if not running:
            return
        async with self._database.transaction() as session:
            known = await jobs.attempts_of(session, [*running])
            for job_id, (attempt, progress) in running.items():
                if known.get(job_id) != (JobStatus.RUNNING, attempt):
                    progress.interrupt(Interruption.LOST)
                    continue
                values = {"stage": progress.stage, "progress": progress.fraction}
                await jobs.update_attempt(session, job_id, attempt, values)

    async def _look_around(self) -> None:
        """Take jobs from dead processes, queue what got lost, and forget what is over."""
        now = datetime.now(UTC)
        async with self._database.transaction() as session:
            dead = [worker for worker in await jobs.list_workers(session) if is_dead(worker, now)]
        for worker in dead:
            async with self._database.transaction() as session:
                if not await jobs.delete_worker(session, worker.id, worker.heartbeat_at):
                    continue  # it lives after all, or somebody else was quicker
            logger.warning("the process %s has died; its jobs are taken over", worker.id)
        async with self._database.transaction() as session:
            orphaned = await jobs.list_orphaned(session)
        for job in orphaned:
            await self._take_over(job)
        if lost := await self._service.requeue_lost():
            logger.warning("%d jobs were queued again", lost)
        async with self._database.transaction() as session:
            alive = {worker.id for worker in await jobs.list_workers(session)}
        await self._background.look_around(alive)
        await self._service.forget_ended(self._keep_days)
        await self._service.sweep_recordings()

    async def _take_over(self, job: Job) -> None:
        assert job.worker_id is not None
        async with self._database.transaction() as session:
            if not await jobs.release(session, job.id, job.worker_id, crashed=True):
                return
            fresh = await jobs.get_job(session, job.id, lock=True)
            if fresh.crashes >= MAX_CRASHES:
                await self._park(session, fresh)
                return
        await self._durable.resume(job.id, job.queue)

    async def _park(self, session: AsyncSession, job: Job) -> None:
        """Give up on a recording that kills whoever processes it; it is kept and may be tried again by hand."""
        error = ProcessingFailed(
            f"The process that worked on this recording died {job.crashes} times, so it is not tried again by itself. "
            "The server's log of that time says why; `POST /jobs/{id}/retry` tries once more.",
            job.conversation_id,
        )
        job.status, job.worker_id, job.error = JobStatus.FAILED, None, error_to_json(error)
        job.finished_at = datetime.now(UTC)
        logger.error("job %s: %s", job.id, error)
        row = await repositories.find_conversation(session, job.conversation_id)
        if row is not None:
            row.status, row.error, row.completed_at = ConversationStatus.FAILED, str(error), job.finished_at


async def _for_ever(pause_s: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except AppError as error:
            logger.warning("%s", error)
        except Exception:
            logger.exception("background work failed; it is tried again")
        await asyncio.sleep(pause_s)
