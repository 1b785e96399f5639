"""JobRecovery: brings back work that dead processes left, and jobs that wait in the rows and not in a queue."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime

from backend.database import jobs
from backend.database.models import Job
from backend.database.session import Database
from backend.domain.lifecycle import Retention
from backend.domain.states.jobs import ENDED
from backend.services.jobs.attempts import Attempts
from backend.services.jobs.durable.engine import DurableEngine
from backend.services.jobs.durable.values import Pending, WorkflowState
from backend.services.jobs.maintenance.announcements import QUEUE as WEBHOOKS
from backend.services.jobs.maintenance.announcements import WORKFLOW as DELIVER
from backend.services.jobs.maintenance.fleet import Fleet
from backend.services.jobs.maintenance.objects import queue_of
from backend.services.jobs.queue import WORKFLOW, JobQueue
from backend.services.jobs.schedule.log import IDLE, Outcome

logger = logging.getLogger(__name__)

AT_ONCE = 500


class JobRecovery:
    """Any number of processes may recover jobs at the same time; within one, the three parts take turns.

    Args:
        host: whose storage queue this process serves.
        unqueued: how long a job may wait in the rows before it is looked for in the queue.

    Attributes:
        on_death: what to call when a process has died: it may have left more than running jobs.
    """

    def __init__(
        self,
        database: Database,
        durable: DurableEngine,
        attempts: Attempts,
        queue: JobQueue,
        fleet: Fleet,
        *,
        host: str,
        unqueued: Retention,
    ) -> None:
        self._database = database
        self._durable = durable
        self._attempts = attempts
        self._queue = queue
        self._fleet = fleet
        self._queues = (WEBHOOKS, queue_of(host))
        self._unqueued = unqueued
        self.on_death: Callable[[], None] | None = None
        self._began_at = datetime.now(UTC)
        self._has_looked = False
        self._turn = asyncio.Lock()

    async def take_over(self) -> Outcome:
        """Unregister dead processes, and queue the jobs again that they had.

        Raises:
            DatabaseUnavailable
        """
        async with self._turn:
            buried = await self._fleet.bury()
            if buried and self.on_death is not None:
                self.on_death()
            async with self._database.transaction() as session:
                orphaned = await jobs.list_orphaned(session)
            for job in orphaned:
                if await self._attempts.take_over(job):
                    await self._durable.resume(job.id, job.queue)
        return Outcome({"processes": buried, "jobs": len(orphaned)}) if buried or orphaned else IDLE

    async def requeue_lost(self) -> Outcome:
        """Queue again what waits in the rows and not in the durable engine.

        A process may die between writing the one and the other; workflows of another shape never start here. What
        waited when the only process began is lost whatever its age.

        Raises:
            DatabaseUnavailable
        """
        async with self._turn:
            before = self._unqueued.expiry(datetime.now(UTC))
            if await self._begins_alone():
                before = max(before, self._began_at)
            async with self._database.transaction() as session:
                waiting = {job.id: job for job in await jobs.list_waiting(session, before, AT_ONCE)}
            states = await self._durable.states([*waiting])
            # After the states: a process that runs a workflow by then was registered before it began.
            live = {worker.id for worker in await self._fleet.list_live()}
            lost = sum([await self._requeue(job, states.get(job.id), live) for job in waiting.values()])
        if not lost:
            return IDLE
        logger.warning("%d jobs were queued again", lost)
        return Outcome({"jobs": lost})

    async def recover_workflows(self) -> Outcome:
        """Resume the work beside jobs that dead processes had, delete workflows of jobs that have ended, and begin jobs
        again that this process could not begin or end.

        Raises:
            DatabaseUnavailable
        """
        async with self._turn:
            pending = await self._durable.pending()
            # After the list: a process that runs one of these by then was registered before it began.
            live = {worker.id for worker in await self._fleet.list_live()}
            orphans = [item for item in pending if item.forsaken or item.executor_id not in live]
            resumed = sum([await self._resume(orphan) for orphan in orphans])
            deleted = await self._forget_ended(orphans)
            begun = sum([await self._begin_again(item) for item in orphans if item.forsaken])
            adopted = await self._adopt(await self._durable.older(), live)
        done = {"resumed": resumed, "deleted": deleted, "begun": begun, "adopted": adopted}
        return Outcome(done) if any(done.values()) else IDLE

    async def _begins_alone(self) -> bool:
        begins, self._has_looked = not self._has_looked, True
        return begins and len(await self._fleet.list_live()) <= 1

    async def _requeue(self, job: Job, state: WorkflowState | None, live: Collection[str]) -> bool:
        """Whether the job had to be queued again."""
        if state is not None and not state.ended and state.version == self._durable.version:
            if state.status != "PENDING" or state.executor_id in live:
                return False
            await self._durable.resume(job.id, job.queue)
            return True
        if state is not None:
            await self._durable.forget([job.id])
        await self._queue.add(job)
        return True

    async def _resume(self, orphan: Pending) -> bool:
        if orphan.workflow == WORKFLOW or not orphan.queue:
            return False
        logger.info("%s goes on: its process has died", orphan.id)
        await self._durable.resume(orphan.id, orphan.queue)
        return True

    async def _forget_ended(self, orphans: Collection[Pending]) -> int:
        """Delete workflows whose process died when their job had just ended."""
        ids = [orphan.id for orphan in orphans if orphan.workflow == WORKFLOW]
        if not ids:
            return 0
        async with self._database.transaction() as session:
            states = await jobs.attempts_of(session, ids)
        over = [job_id for job_id in ids if job_id not in states or states[job_id][0] in ENDED]
        if over:
            await self._durable.forget(over)
        return len(over)

    async def _begin_again(self, item: Pending) -> bool:
        """Queue a job of this process again that it could not begin or end, because the database was away just then."""
        if item.workflow != WORKFLOW or item.queue is None:
            return False
        waits = await self._attempts.requeue_own(item.id)
        if waits:
            logger.warning("job %s is queued again", item.id)
            await self._durable.resume(item.id, item.queue)
        return waits

    async def _adopt(self, older: Collection[Pending], live: Collection[str]) -> int:
        """Begin again, in this version's shape, work beside jobs that an older version left and no live process has."""
        left = [item for item in older if item.queue in self._queues and item.executor_id not in live]
        for item in left:
            if item.workflow == DELIVER:
                delivery_id, tried, _ = item.id.split(":")
                await self._durable.enqueue(DELIVER, f"{delivery_id}:{tried}:{time.time_ns()}", WEBHOOKS)
        if left:
            await self._durable.forget([item.id for item in left])
            logger.info("%d pieces of work that an older version of Aperta left were begun again", len(left))
        return len(left)
