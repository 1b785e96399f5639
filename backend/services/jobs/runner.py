"""Runs jobs in this process: claims them, watches that they are still wanted, and writes how they ended."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

import anyio
import anyio.to_thread
from sqlalchemy.ext.asyncio import AsyncSession

from backend.concurrency.rounds import Rounds
from backend.concurrency.waiting import until_available
from backend.database import conversations, jobs
from backend.database.jobs import ENDED
from backend.database.models import ConversationStatus, Job, JobStatus
from backend.database.session import Database, database_errors
from backend.database.workers import delete_worker, list_workers, read_clock
from backend.domain.jobs import MAX_CRASHES, Superseded, error_to_json
from backend.errors import DatabaseUnavailable, NotFound, ProcessingFailed, StorageMisconfigured
from backend.observability.logs import log_context
from backend.observability.tracing import span
from backend.services.jobs.background import LIMITS as BACKGROUND_LIMITS
from backend.services.jobs.background import Background
from backend.services.jobs.durable import DurableEngine, Pending, QueueLimit
from backend.services.jobs.heartbeat import Heartbeat, ProcessIdentity, is_dead
from backend.services.jobs.maintenance import JobMaintenance
from backend.services.jobs.recording import OutOfReach, Recordings
from backend.services.jobs.service import LONG, QUEUES, SHORT, WORKFLOW, JobService
from backend.services.jobs.steps import DurableSteps, Interrupted, Interruption, JobProgress
from backend.services.processing.service import ProcessingService
from backend.services.speech.values import ignore_progress
from backend.services.storage import SpooledFile, StorageService

logger = logging.getLogger(__name__)

WATCH_EVERY_S = 0.5
LOOK_AROUND_EVERY_S = 5.0
LOOK_AROUND_AT_ONCE = 5
"""So many processes look around once in that time; if there are more, each does so more seldom."""
ALL_QUEUES = (*QUEUES, *BACKGROUND_LIMITS)


class JobRunner:
    """
    Args:
        listen: queues whose work this process does; none for a process that only accepts jobs.
        at_once: jobs of one queue at a time.
        poll_s: how long a job may wait to be seen.
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
        poll_s: float = 0.1,
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
        self._recordings = Recordings(storage, database)
        self._limits = {SHORT: QueueLimit(at_once, poll_s), LONG: QueueLimit(at_once, max(1.0, poll_s))}
        self._limits |= {background.queue(name): limit for name, limit in BACKGROUND_LIMITS.items()}
        self._maintenance = JobMaintenance(storage, database, durable, service, keep_days=keep_days)
        self._heartbeat = Heartbeat(database.url, identity, self._listen)
        self._running: dict[str, tuple[int, JobProgress]] = {}
        self._rounds = (
            Rounds("watching jobs", self._watch, lambda: WATCH_EVERY_S),
            Rounds("looking for dead processes", self._look_around, self._pause_s),
        )
        self._handed_back: set[asyncio.Task[object]] = set()
        self._starting = asyncio.Lock()
        self._suspects = asyncio.Lock()
        self._colleagues = 1
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
            for rounds in self._rounds:
                rounds.start()

    async def stop(self) -> None:
        """Stop; jobs that run are handed back, and another process or the next start goes on with them."""
        if not self._started:
            return
        self._stopping = True
        await asyncio.gather(*(rounds.stop() for rounds in self._rounds))
        for _, progress in self._running.values():
            progress.interrupt(Interruption.STOPPING)
        while self._running:  # noqa: ASYNC110 - jobs end in many places
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
        while self._running and asyncio.get_running_loop().time() < end and not hurried.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    async def _run(self, job_id: str) -> None:
        """The workflow. Returns when the job has ended or is another's; stays pending if this process stops."""
        with log_context(job_id=job_id), span("job"):
            if not await self._try(job_id):
                await self._hand_back(job_id)
            await self._background.announce(job_id)

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
        self._running[job_id] = (job.attempt, progress)
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
            self._running.pop(job_id, None)
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
                await self._park(session, job)
                return None
            if job.crashes and not alone:
                raise _Suspect
            job.attempt += 1
            job.status, job.worker_id = JobStatus.RUNNING, self._identity.id
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
            await jobs.release(session, job.id, self._identity.id, crashed=crashed)

    async def _hand_back(self, job_id: str) -> None:
        """Never return: a workflow that returned is over. The engine's end cancels this."""
        logger.info("job %s is handed back", job_id)
        self._durable.give_up(job_id)
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
                values: dict[str, object] = {"stage": progress.stage, "progress": progress.fraction}
                if progress.advanced:
                    values["crashes"] = 0  # it gets somewhere, so it is not the recording that kills processes
                await jobs.update_attempt(session, job_id, attempt, values)

    def _pause_s(self) -> float:
        """In a large fleet each looks around more seldom: what they do together stays the same."""
        return LOOK_AROUND_EVERY_S * max(1.0, self._colleagues / LOOK_AROUND_AT_ONCE) * random.uniform(0.8, 1.2)

    async def _look_around(self) -> None:
        """Take jobs from dead processes, queue what got lost, and forget what is over."""
        async with self._database.transaction() as session:
            now, workers = await read_clock(session), await list_workers(session)
        dead = [worker for worker in workers if is_dead(worker, now, self._heartbeat.steady_s)]
        for worker in dead:
            async with self._database.transaction() as session:
                if not await delete_worker(session, worker.id, worker.heartbeat_at):
                    continue  # it lives after all, or somebody else was quicker
            logger.warning("the process %s has died; its jobs are taken over", worker.id)
        async with self._database.transaction() as session:
            orphaned = await jobs.list_orphaned(session)
        for job in orphaned:
            await self._take_over(job)
        if lost := await self._maintenance.requeue_lost():
            logger.warning("%d jobs were queued again", lost)
        pending = await self._durable.pending()
        async with self._database.transaction() as session:
            # Later than what is pending: whoever runs that by now has been registered before it began.
            workers = await list_workers(session)
        alive = {worker.id for worker in workers}
        await self._background.adopt(await self._durable.older(), alive)
        orphans = [item for item in pending if item.forsaken or item.executor_id not in alive]
        await self._background.look_around(orphans, {worker.host for worker in workers})
        await self._maintenance.forget_orphans(orphans)
        await self._begin_again([item for item in orphans if item.forsaken])
        await self._maintenance.forget_ended()
        await self._maintenance.sweep_recordings()
        await self._storage.spool_files.sweep()
        await self._durable.pace(len(alive))
        self._colleagues = len(alive)

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

    async def _begin_again(self, forsaken: Sequence[Pending]) -> None:
        """Queue jobs of this process again that it could not begin or end, because the database was away just then."""
        for item in forsaken:
            if item.workflow != WORKFLOW or item.queue is None:
                continue
            async with self._database.transaction() as session:
                await jobs.release(session, item.id, self._identity.id, crashed=False)
                waits = (await jobs.attempts_of(session, [item.id])).get(item.id, ("", 0))[0] == JobStatus.QUEUED
            if waits:
                logger.warning("job %s is queued again", item.id)
                await self._durable.resume(item.id, item.queue)

    async def _park(self, session: AsyncSession, job: Job) -> None:
        """Give up on a recording that kills whoever processes it; it is kept and may be tried again by hand."""
        error = ProcessingFailed(
            f"The process that worked on this recording died {job.crashes} times at the same step, so it is not tried "
            "again by itself. "
            "The server's log of that time says why; `POST /jobs/{id}/retry` tries once more.",
            job.conversation_id,
        )
        job.status, job.worker_id, job.error = JobStatus.FAILED, None, error_to_json(error)
        job.finished_at = datetime.now(UTC)
        logger.error("job %s: %s", job.id, error)
        row = await conversations.find_conversation(session, job.conversation_id)
        if row is not None:
            row.status, row.error, row.completed_at = ConversationStatus.FAILED, str(error), job.finished_at


class _Suspect(Exception):
    """The job's process has died before."""
