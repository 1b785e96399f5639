"""Work beside the jobs, made durable: messages to webhooks, draining to S3, deletes that a dead store held up.

What is done is in `webhooks.py`, `drain.py` and `deletes.py`; here is when.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from backend.database.session import Database
from backend.database.webhooks import find_unannounced, list_unannounced
from backend.errors import NotFound
from backend.services.conversations.deletion import DeletionService
from backend.services.jobs.durable import DurableEngine, Pending, QueueLimit, run_step
from backend.services.lifecycle.drain import DrainService
from backend.services.storage import StorageService
from backend.services.webhooks.service import RETRY_AFTER_S, WebhookService, jittered

logger = logging.getLogger(__name__)

DELIVER, DRAIN, DELETE = "deliver_webhook", "drain_storage", "finish_deletes"
WEBHOOKS, STORAGE = "webhooks", "storage"
LIMITS = {WEBHOOKS: QueueLimit(8, poll_s=1.0), STORAGE: QueueLimit(2, poll_s=1.0)}
DELETES_EVERY_S = 60.0


class Background:
    def __init__(
        self,
        storage: StorageService,
        database: Database,
        durable: DurableEngine,
        webhooks: WebhookService,
        drain: DrainService,
        deletes: DeletionService,
        *,
        host: str,
    ) -> None:
        self._storage = storage
        self._database = database
        self._durable = durable
        self._webhooks = webhooks
        self._drain = drain
        self._deletes = deletes
        self._deletes_at = 0.0
        # A machine moves the files that it has, so each has a queue of its own for that.
        self._storage_queue = f"{STORAGE}-{host}"
        webhooks.schedule = self.schedule_delivery
        durable.register(DELIVER, self._deliver)
        durable.register(DRAIN, self._drain_once)
        durable.register(DELETE, self._finish_deletes)

    def queue(self, name: str) -> str:
        """What a queue that users know by this name is called on this machine."""
        return self._storage_queue if name == STORAGE else name

    async def announce(self, job_id: str) -> None:
        """Tell the webhook of a job that has ended, if it has one and was not told."""
        async with self._database.transaction() as session:
            job = await find_unannounced(session, job_id)
            if job is None or job.callback_url is None:
                return
            message = self._webhooks.create(session, job.id, job.callback_url, f"job.{job.status}")
        await self.schedule_delivery(message.id)

    async def schedule_delivery(self, delivery_id: str) -> None:
        """Send a message now, and again later for as long as it fails."""
        await self._durable.enqueue(DELIVER, f"{delivery_id}:0:{time.time_ns()}", WEBHOOKS)

    async def adopt(self, older: Collection[Pending], alive: Collection[str]) -> None:
        """Begin again, in this version's shape, what an older version left and no living process has.

        Args:
            older: workflows of older versions.
            alive: processes that live.
        """
        queues = (WEBHOOKS, self._storage_queue)
        left = [item for item in older if item.queue in queues and item.executor_id not in alive]
        for item in left:
            if item.workflow == DELIVER:
                delivery_id, tried, _ = item.id.split(":")
                await self._durable.enqueue(DELIVER, f"{delivery_id}:{tried}:{time.time_ns()}", WEBHOOKS)
        if left:
            await self._durable.forget([item.id for item in left])
            logger.info("%d pieces of work that an older version of Aperta left were begun again", len(left))

    async def look_around(self, orphans: Collection[Pending], hosts: Collection[str]) -> None:
        """Start what is due, and what dead processes were at.

        Args:
            orphans: workflows whose process has died.
            hosts: machines with a process that lives.
        """
        for orphan in orphans:
            if orphan.workflow in (DELIVER, DRAIN, DELETE) and orphan.queue:
                logger.info("%s goes on: its process has died", orphan.id)
                await self._durable.resume(orphan.id, orphan.queue)
        async with self._database.transaction() as session:
            since = datetime.now(UTC) - timedelta(days=1)
            unannounced = await list_unannounced(session, since, limit=100)
        for job_id in unannounced:
            await self.announce(job_id)
        waiting = await self._drain.backlog()
        if waiting.objects > waiting.parked and self._storage.breaker.error is None:
            await self._once(DRAIN)
        if time.monotonic() - self._deletes_at > DELETES_EVERY_S:
            self._deletes_at = time.monotonic()
            await self._once(DELETE)
            # Machines come and go, and every process reads the list of queues each second.
            await self._durable.forget_queues(f"{STORAGE}-", [f"{STORAGE}-{host}" for host in hosts])

    async def _once(self, workflow: str) -> None:
        """Queue a workflow unless one of its name waits or runs anywhere."""
        await self._durable.enqueue(workflow, f"{workflow}:{time.time_ns()}", self._storage_queue, only_one=workflow)

    async def _deliver(self, workflow_id: str) -> None:
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
            again = f"{delivery_id}:{int(tried) + 1}:{time.time_ns()}"
            await self._durable.enqueue(DELIVER, again, WEBHOOKS, delay_s=pause_s)

    async def _drain_once(self, _workflow_id: str) -> None:
        await self._drain.drain_all()

    async def _finish_deletes(self, _workflow_id: str) -> None:
        await self._deletes.finish_pending()
