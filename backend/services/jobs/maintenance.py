"""What is done about jobs now and then: queue what got lost, forget what is over, delete what nobody needs."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from backend.database import jobs, workers
from backend.database.session import Database
from backend.domain.job_states import ENDED, JobStatus
from backend.services.jobs.durable import DurableEngine, Pending
from backend.services.jobs.service import WORKFLOW, JobService
from backend.services.storage import StorageService

logger = logging.getLogger(__name__)

SETTLED_AFTER_S = 10.0
"""So long after a recording came, a commit that was on its way is there or is not."""


class JobMaintenance:
    """
    Args:
        keep_days: how long rows of ended jobs are kept.
    """

    def __init__(
        self,
        storage: StorageService,
        database: Database,
        durable: DurableEngine,
        service: JobService,
        *,
        keep_days: float,
    ) -> None:
        self._storage = storage
        self._database = database
        self._durable = durable
        self._jobs = service
        self._keep_days = keep_days

    async def requeue_lost(self) -> int:
        """Queue again what waits in the rows and not in the durable engine; returns how many.

        A process may die between writing the one and the other; workflows of another shape never start here.
        """
        before = datetime.now(UTC) - timedelta(seconds=5)
        async with self._database.transaction() as session:
            waiting = {job.id: job for job in await jobs.list_waiting(session, before, 500)}
        states = await self._durable.states([*waiting])
        async with self._database.transaction() as session:
            # Later than the states: whoever runs a workflow by then has been registered before it began.
            alive = {worker.id for worker in await workers.list_workers(session)}
        lost = 0
        for job_id, job in waiting.items():
            state = states.get(job_id)
            if state is not None and not state.ended and state.version == self._durable.version:
                if state.status == "PENDING" and state.executor_id not in alive:
                    await self._durable.resume(job_id, job.queue)
                    lost += 1
                continue
            if state is not None:
                await self._durable.forget([job_id])
            await self._jobs.enqueue(job)
            lost += 1
        return lost

    async def forget_ended(self) -> None:
        """Delete checkpoints of workflows that ended, and rows of jobs that ended long ago."""
        ended = await self._durable.ended(limit=500)
        async with self._database.transaction() as session:
            states = await jobs.attempts_of(session, ended)
            await jobs.delete_ended(session, datetime.now(UTC) - timedelta(days=self._keep_days))
        done = [job_id for job_id in ended if states.get(job_id, (JobStatus.COMPLETED, 0))[0] in ENDED]
        if done:
            await self._durable.forget(done)

    async def forget_orphans(self, orphans: Collection[Pending]) -> None:
        """Delete workflows whose process died when their job had just ended."""
        ids = [orphan.id for orphan in orphans if orphan.workflow == WORKFLOW]
        if not ids:
            return
        async with self._database.transaction() as session:
            states = await jobs.attempts_of(session, ids)
        over = [job_id for job_id in ids if job_id not in states or states[job_id][0] in ENDED]
        if over:
            await self._durable.forget(over)

    async def sweep_recordings(self) -> None:
        """Delete recordings in the spool that no job needs: their process died before or after it wrote the job.

        Other databases may have jobs with recordings in the same folder; theirs are left alone.
        """
        found = await self._storage.accepted.names(older_than_s=SETTLED_AFTER_S)
        if not found:
            return
        mark = await self._database.mark()
        ours = {name for name in found if name.startswith(f"job_{mark}")}
        async with self._database.transaction() as session:
            wanted = await jobs.list_spooled(session)
        for name in ours - wanted:
            logger.info("%s was left in the spool by a process that died, and is deleted", name)
            await self._storage.accepted.remove(name)
