"""What an operator graphs and alerts on, in Prometheus' terms. One registry per process, no global one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, start_http_server
from prometheus_client.registry import Collector

STAGE_BUCKETS_S = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
FACTOR_BUCKETS = (0.5, 1, 2, 5, 10, 20, 30, 50, 100)


class Metrics:
    """Counts of recordings and audio, seconds per stage, and how many times faster than real time they were."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._recordings = Counter(
            "aperta_recordings", "Recordings by how they ended", ["outcome"], registry=self._registry
        )
        self._audio_s = Counter("aperta_audio_seconds", "Seconds of audio processed", registry=self._registry)
        self._stages_s = Histogram(
            "aperta_stage_seconds",
            "Seconds a stage of one recording took",
            ["stage"],
            buckets=STAGE_BUCKETS_S,
            registry=self._registry,
        )
        self._factor = Histogram(
            "aperta_real_time_factor",
            "Seconds of audio per second of processing",
            buckets=FACTOR_BUCKETS,
            registry=self._registry,
        )

        self._jobs = Gauge("aperta_jobs", "Jobs that wait or run", ["queue", "status"], registry=self._registry)
        self._oldest_job_s = Gauge(
            "aperta_oldest_job_seconds",
            "Age of the oldest queued or running job in seconds",
            ["queue", "status"],
            registry=self._registry,
        )
        self._drained_objects = Counter(
            "aperta_drained_objects", "Objects that moved from the local disk to S3", registry=self._registry
        )
        self._drained_bytes = Counter(
            "aperta_drained_bytes", "Bytes moved from the local disk to S3", registry=self._registry
        )
        self._pending_objects = Gauge(
            "aperta_drain_pending_objects", "Objects on the local disk that belong in S3", registry=self._registry
        )
        self._pending_bytes = Gauge(
            "aperta_drain_pending_bytes",
            "Bytes on the local disk that are waiting to move to S3",
            registry=self._registry,
        )
        self._oldest_s = Gauge(
            "aperta_drain_oldest_seconds",
            "Age in seconds of the oldest object that is waiting to move to S3",
            registry=self._registry,
        )
        self._parked_objects = Gauge(
            "aperta_drain_parked_objects",
            "Objects on the local disk that need an operator before they can move",
            registry=self._registry,
        )

    def register(self, figures: Collector) -> None:
        """Add a collector to the registry."""
        self._registry.register(figures)

    def completed(self, duration_s: float, stages_s: Mapping[str, float]) -> None:
        """One recording was processed and stored."""
        self._recordings.labels("completed").inc()
        self._audio_s.inc(duration_s)
        for stage, seconds in stages_s.items():
            self._stages_s.labels(stage).observe(seconds)
        if total_s := stages_s.get("total"):
            self._factor.observe(duration_s / total_s)

    def ended(self, outcome: str) -> None:
        """One recording was not processed: "refused" for bad input, "failed" otherwise."""
        self._recordings.labels(outcome).inc()

    def drained(self, size_bytes: int) -> None:
        """One object moved from the local disk to S3."""
        self._drained_objects.inc()
        self._drained_bytes.inc(size_bytes)

    def backlog(self, objects: int, size_bytes: int, parked: int, oldest_s: float) -> None:
        """Set how far S3 is behind."""
        self._pending_objects.set(objects)
        self._pending_bytes.set(size_bytes)
        self._parked_objects.set(parked)
        self._oldest_s.set(oldest_s)

    def queues(self, figures: Sequence[tuple[str, str, int, float]]) -> None:
        """Set the number and age of queued and running jobs: queue, status, count, age of the oldest in seconds."""
        self._jobs.clear()
        self._oldest_job_s.clear()
        for queue, status, count, oldest_s in figures:
            self._jobs.labels(queue, status).set(count)
            self._oldest_job_s.labels(queue, status).set(oldest_s)

    @contextmanager
    def served(self, address: tuple[str, int] | None) -> Iterator[None]:
        """Serve the metrics on a separate address and port, for processes without an API; None: do not."""
        if address is None:
            yield
            return
        host, port = address
        server, thread = start_http_server(port, host, registry=self._registry)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def render(self) -> bytes:
        """The Prometheus text format, version 0.0.4."""
        return generate_latest(self._registry)
