"""Runs jobs in this process: begins and ends with it. `attempts.py` has what happens to one job."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import cast

import anyio
import anyio.to_thread

from backend.database.session import database_errors
from backend.observability.logs import log_context
from backend.observability.tracing import span
from backend.services.jobs.attempts import Attempts, Suspect
from backend.services.jobs.durable.engine import DurableEngine
from backend.services.jobs.durable.values import QueueLimit
from backend.services.jobs.heartbeat import Heartbeat
from backend.services.jobs.maintenance.announcements import QUEUE as WEBHOOKS
from backend.services.jobs.maintenance.announcements import Announcements
from backend.services.jobs.maintenance.objects import QUEUE as STORAGE
from backend.services.jobs.maintenance.objects import queue_of
from backend.services.jobs.queue import LONG, QUEUES, SHORT, WORKFLOW
from backend.services.jobs.running import RunningJobs
from backend.services.jobs.schedule.scheduler import Scheduler
from backend.services.jobs.steps import Interruption, JobProgress
from backend.services.jobs.watch import JobWatch
from backend.services.speech.values import ignore_progress

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
        durable: DurableEngine,
        attempts: Attempts,
        watch: JobWatch,
        running: RunningJobs,
        announcements: Announcements,
        scheduler: Scheduler,
        heartbeat: Heartbeat,
        *,
        listen: Sequence[str] = ALL_QUEUES,
        at_once: int = 1,
        poll_s: float = 0.1,
    ) -> None:
        self._durable = durable
        self._attempts = attempts
        self._waiting = watch
        self._running = running
        self._announcements = announcements
        self._scheduler = scheduler
        self._heartbeat = heartbeat
        self._listen = tuple(listen)
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
        """Stop; jobs that run are handed back, and another process or the next start resumes them."""
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
        """Take no new jobs, and wait for those that run, for some seconds or until `hurried` is set."""
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
        except Suspect:
            # If it is this recording that kills processes, no other suspect dies with it and is parked in its place.
            async with self._suspects:
                return await self._attempt(job_id, alone=True)

    async def _attempt(self, job_id: str, *, alone: bool) -> bool:
        """As `_try`. Raises Suspect."""
        if self._stopping:
            return False
        job = await self._attempts.claim(job_id, alone=alone)
        if job is None:
            return True
        progress = JobProgress(self._waiting.reports.get(job_id, ignore_progress))
        self._running.add(job_id, job.attempt, progress)
        if self._stopping:
            progress.interrupt(Interruption.STOPPING)
        try:
            return await self._attempts.run(job, progress)
        finally:
            self._running.remove(job_id)
            self._waiting.end(job_id)

    async def _hand_back(self, job_id: str) -> None:
        """Never return: a workflow that returned is over. The engine's end cancels this."""
        logger.info("job %s is handed back", job_id)
        self._durable.give_up(job_id)
        self._handed_back.add(cast("asyncio.Task[object]", asyncio.current_task()))
        await asyncio.Event().wait()
