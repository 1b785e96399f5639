"""ObjectMaintenance: draining to S3 and finishing deletes, as durable workflows in a queue of each machine.

A machine moves the files that it has, so each machine has one.
"""

from __future__ import annotations

import time
from dataclasses import asdict

from backend.services.conversations.deletion import DeletesReport, DeletionService
from backend.services.jobs.durable.engine import DurableEngine
from backend.services.jobs.maintenance.fleet import Fleet
from backend.services.jobs.schedule.log import IDLE, Outcome, ScheduleLog
from backend.services.jobs.schedule.table import Entry
from backend.services.lifecycle.drain import DrainReport, DrainService
from backend.services.storage.placement.breaker import Breaker

DRAIN, DELETE = "drain_storage", "finish_deletes"
QUEUE = "storage"


class ObjectMaintenance:
    """
    Args:
        host: the name of this machine.
        drain_entry: of the table of periodic work.
        deletes_entry: of the table of periodic work.
    """

    def __init__(
        self,
        breaker: Breaker,
        durable: DurableEngine,
        drain: DrainService,
        deletes: DeletionService,
        fleet: Fleet,
        log: ScheduleLog,
        *,
        host: str,
        drain_entry: Entry,
        deletes_entry: Entry,
    ) -> None:
        self._breaker = breaker
        self._durable = durable
        self._drain = drain
        self._deletes = deletes
        self._fleet = fleet
        self._log = log
        self._queue = queue_of(host)
        self._drain_entry = drain_entry
        self._deletes_entry = deletes_entry

    async def queue_drain(self) -> Outcome | None:
        """Queue a drain if objects wait that may move, and S3 can be used.

        Raises:
            DatabaseUnavailable
        """
        waiting = await self._drain.backlog()
        if waiting.objects <= waiting.parked or self._breaker.error is not None:
            return IDLE
        await self._enqueue(DRAIN)
        return None

    async def queue_deletes(self) -> Outcome | None:
        """Queue the rest of all deletes if there is any.

        Raises:
            DatabaseUnavailable
        """
        if not await self._deletes.is_pending():
            return IDLE
        await self._enqueue(DELETE)
        return None

    async def forget_queues(self) -> Outcome:
        """Delete the queues of machines without a live process.

        Raises:
            DatabaseUnavailable
        """
        live = {queue_of(worker.host) for worker in await self._fleet.list_live()}
        forgotten = await self._durable.forget_queues(queue_of(""), live)
        return Outcome({"queues": forgotten}) if forgotten else IDLE

    async def run_drain(self, _workflow_id: str) -> None:
        """The workflow of a drain."""

        async def work() -> Outcome:
            report = await self._drain.drain_all()
            return Outcome(asdict(report) if report != DrainReport() else {}, ok=report.stopped is None)

        await self._log.record(self._drain_entry, work)

    async def run_deletes(self, _workflow_id: str) -> None:
        """The workflow that finishes deletes."""

        async def work() -> Outcome:
            report = await self._deletes.finish_pending()
            return Outcome(asdict(report) if report != DeletesReport() else {}, ok=report.left == 0)

        await self._log.record(self._deletes_entry, work)

    async def _enqueue(self, workflow: str) -> None:
        """Queue a workflow unless one of its name waits or runs on this machine."""
        await self._durable.enqueue(workflow, f"{workflow}:{time.time_ns()}", self._queue, only_one=workflow)


def queue_of(host: str) -> str:
    """What the queue `storage` of a machine is called."""
    return f"{QUEUE}-{host}"
