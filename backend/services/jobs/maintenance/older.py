"""OlderWork: begins again, in this version's shape, what an older version of Aperta left beside its jobs."""

from __future__ import annotations

import logging

from backend.services.jobs.durable import DurableEngine
from backend.services.jobs.maintenance import announcements, objects
from backend.services.jobs.maintenance.announcements import DeliveryQueue
from backend.services.jobs.maintenance.fleet import Fleet

logger = logging.getLogger(__name__)


class OlderWork:
    """Jobs are not in here: they are queued again from their rows.

    Args:
        host: this machine; the work on the objects of another one is left to it.
    """

    def __init__(self, durable: DurableEngine, deliveries: DeliveryQueue, fleet: Fleet, *, host: str) -> None:
        self._durable = durable
        self._deliveries = deliveries
        self._fleet = fleet
        self._queues = (announcements.QUEUE, objects.queue_of(host))

    async def begin_again(self) -> int:
        """Queue messages again that no living process has, and delete other workflows: the schedule queues those.

        Returns:
            How many there were.

        Raises:
            DatabaseUnavailable
        """
        older = [item for item in await self._durable.older() if item.queue in self._queues]
        # After the list: a process that runs one of these by then was registered before it began.
        live = {worker.id for worker in await self._fleet.list_live()} if older else set()
        left = [item for item in older if item.executor_id not in live]
        for item in left:
            if item.workflow == announcements.WORKFLOW:
                delivery_id, tried, _ = item.id.split(":")
                await self._deliveries.add_again(delivery_id, tried=int(tried), pause_s=0)
        if left:
            await self._durable.forget([item.id for item in left])
            logger.info("%d pieces of work that an older version of Aperta left were begun again", len(left))
        return len(left)
