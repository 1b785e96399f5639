"""Telling webhooks how jobs ended, made durable: a message for each ended job, its attempts as workflows in a queue."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from backend.database.session import Database
from backend.database.webhooks import find_unannounced, list_unannounced
from backend.domain.lifecycle import Retention
from backend.errors import NotFound
from backend.services.jobs.durable import DurableEngine, run_step
from backend.services.jobs.schedule.log import IDLE, Outcome
from backend.services.webhooks.service import RETRY_AFTER_S, WebhookService, jittered

logger = logging.getLogger(__name__)

WORKFLOW = "deliver_webhook"
QUEUE = "webhooks"
AT_ONCE = 100


class DeliveryQueue:
    """Messages that wait for an attempt."""

    def __init__(self, durable: DurableEngine) -> None:
        self._durable = durable

    async def add(self, delivery_id: str) -> None:
        """Send a message now, and again later for as long as it fails.

        Raises:
            DatabaseUnavailable
        """
        await self._add(delivery_id, tried=0)

    async def add_again(self, delivery_id: str, *, tried: int, pause_s: float) -> None:
        """Send a message after a pause.

        Args:
            tried: how many attempts have failed.

        Raises:
            DatabaseUnavailable
        """
        await self._add(delivery_id, tried=tried, pause_s=pause_s)

    async def _add(self, delivery_id: str, *, tried: int, pause_s: float = 0) -> None:
        workflow_id = f"{delivery_id}:{tried}:{time.time_ns()}"
        await self._durable.enqueue(WORKFLOW, workflow_id, QUEUE, delay_s=pause_s)


class Announcements:
    """
    Args:
        missed: how long ago a job may have ended that is still announced.
    """

    def __init__(
        self, database: Database, webhooks: WebhookService, deliveries: DeliveryQueue, *, missed: Retention
    ) -> None:
        self._database = database
        self._webhooks = webhooks
        self._deliveries = deliveries
        self._missed = missed

    async def announce(self, job_id: str) -> None:
        """Tell the webhook of a job that has ended, if it has one and was not told.

        Raises:
            DatabaseUnavailable
        """
        async with self._database.transaction() as session:
            job = await find_unannounced(session, job_id)
            if job is None or job.callback_url is None:
                return
            message = self._webhooks.create(session, job.id, job.callback_url, f"job.{job.status}")
        await self._deliveries.add(message.id)

    async def announce_missed(self) -> Outcome:
        """Announce ended jobs whose process died before it could.

        Raises:
            DatabaseUnavailable
        """
        since = self._missed.expiry(datetime.now(UTC))
        async with self._database.transaction() as session:
            unannounced = await list_unannounced(session, since, limit=AT_ONCE)
        for job_id in unannounced:
            await self.announce(job_id)
        return Outcome({"jobs": len(unannounced)}) if unannounced else IDLE

    async def deliver(self, workflow_id: str) -> None:
        """The workflow: one attempt, and the next one queued if it fails."""
        delivery_id, tried, _ = workflow_id.split(":")
        last = int(tried) >= len(RETRY_AFTER_S)

        async def attempt() -> bool:
            try:
                return (await self._webhooks.attempt(delivery_id, last=last)).retry
            except NotFound:
                logger.info("message %s went with its job", delivery_id)
                return False

        if await run_step("attempt", attempt):
            pause_s = jittered(RETRY_AFTER_S[int(tried)])
            await self._deliveries.add_again(delivery_id, tried=int(tried) + 1, pause_s=pause_s)
