"""The queues of jobs in Prometheus' terms."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from backend.services.jobs.service import JobService


class QueueMetrics:
    """Asks the rows how many jobs wait and run."""

    def __init__(self, service: JobService) -> None:
        self._service = service

    async def ask(self) -> Sequence[Metric]:
        """The present metrics.

        Raises:
            DatabaseUnavailable
        """
        labels = ["queue", "status"]
        jobs = GaugeMetricFamily("aperta_jobs", "Jobs that wait or run", labels=labels)
        oldest = GaugeMetricFamily(
            "aperta_oldest_job_seconds", "Age of the oldest job that waits or runs", labels=labels
        )
        for queue, status, count, oldest_s in await self._service.figures():
            jobs.add_metric([queue, status], count)
            oldest.add_metric([queue, status], oldest_s)
        return jobs, oldest
