"""How far S3 is behind, in Prometheus' terms."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.core import GaugeMetricFamily, Metric

from backend.services.lifecycle.drain import DrainService


class BacklogMetrics:
    """Asks the drain what waits."""

    def __init__(self, drain: DrainService) -> None:
        self._drain = drain

    async def ask(self) -> Sequence[Metric]:
        """The present metrics.

        Raises:
            DatabaseUnavailable
        """
        found = await self._drain.backlog()
        return (
            GaugeMetricFamily(
                "aperta_drain_pending_objects", "Objects on the local disk that belong in S3", value=found.objects
            ),
            GaugeMetricFamily(
                "aperta_drain_pending_bytes",
                "Size of the objects on the local disk that belong in S3",
                value=found.bytes,
            ),
            GaugeMetricFamily(
                "aperta_drain_parked_objects",
                "Objects that do not move to S3 until an operator has them tried again",
                value=found.parked,
            ),
            GaugeMetricFamily(
                "aperta_drain_oldest_seconds",
                "How long the oldest object that may move to S3 has been waiting",
                value=found.oldest_s,
            ),
        )
