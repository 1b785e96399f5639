"""Fleet: the processes that run jobs at this time, and the pace that follows from their number."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from backend.database.models import Worker
from backend.database.session import Database
from backend.database.workers import delete_worker, list_workers, read_clock
from backend.domain.lifecycle import Cadence
from backend.services.jobs.durable.engine import DurableEngine
from backend.services.jobs.heartbeat import Heartbeat, is_dead
from backend.services.jobs.schedule.log import IDLE, Outcome, ScheduleLog

logger = logging.getLogger(__name__)

REFRESH_ALONE = Cadence(60.0)
"""How often a process reads what other processes did while there are none; a command may have come and gone."""


class Fleet:
    """
    Attributes:
        size: how many processes there were at the last count.
    """

    def __init__(self, database: Database, durable: DurableEngine, heartbeat: Heartbeat, log: ScheduleLog) -> None:
        self._database = database
        self._durable = durable
        self._heartbeat = heartbeat
        self._log = log
        self.size = 1
        self._refreshed_at: datetime | None = None

    async def list_live(self) -> Sequence[Worker]:
        """The registered processes.

        Raises:
            DatabaseUnavailable
        """
        async with self._database.transaction() as session:
            return await list_workers(session)

    async def adapt(self) -> Outcome:
        """Count the processes, slow the queues down or speed them up accordingly, and learn what other processes did.

        Raises:
            DatabaseUnavailable
        """
        before, self.size = self.size, len(await self.list_live())
        await self._durable.pace(self.size)
        now = datetime.now(UTC)
        if self.size > 1 or REFRESH_ALONE.is_due(now, self._refreshed_at):
            await self._log.refresh()
            self._refreshed_at = now
        return IDLE if self.size == before else Outcome({"processes": self.size})

    async def bury(self) -> int:
        """Unregister processes that have died; returns how many.

        Raises:
            DatabaseUnavailable
        """
        async with self._database.transaction() as session:
            now, workers = await read_clock(session), await list_workers(session)
        buried = 0
        for worker in workers:
            if is_dead(worker, now, self._heartbeat.steady_s) and await self._unregister(worker):
                logger.warning("the process %s has died; its jobs are taken over", worker.id)
                buried += 1
        return buried

    async def _unregister(self, worker: Worker) -> bool:
        """False: it has beaten again, or another process was quicker."""
        async with self._database.transaction() as session:
            return await delete_worker(session, worker.id, worker.heartbeat_at)
