"""The queue in which accepted jobs wait: its names, and how a job whose row is written gets there."""

from __future__ import annotations

import logging

from backend.database.models import Job
from backend.errors import DatabaseUnavailable
from backend.services.jobs.durable import DurableEngine

logger = logging.getLogger(__name__)

WORKFLOW = "process_recording"
SHORT, LONG = "asr", "asr-long"
QUEUES = (SHORT, LONG)
LONG_FROM_S = 30 * 60
"""From this length on, recordings wait in another queue, so that short ones are not stuck behind them."""


class JobQueue:
    def __init__(self, durable: DurableEngine) -> None:
        self._durable = durable

    async def add(self, job: Job, *, here: bool = False) -> None:
        """Queue a job. If the durable engine cannot be reached, the regular search for lost jobs queues it.

        Args:
            job: its row is written.
            here: run it in this process now, past the queue.
        """
        if here:
            await self._durable.run_here(WORKFLOW, job.id)
            return
        try:
            await self._durable.enqueue(WORKFLOW, job.id, job.queue, priority=job.priority)
        except DatabaseUnavailable as error:
            logger.warning("job %s will be queued later: %s", job.id, error)


def queue_for(expected_s: float | None) -> str:
    """The queue for a recording of this length."""
    return LONG if (expected_s or 0) >= LONG_FROM_S else SHORT
