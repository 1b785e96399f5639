"""What an operator graphs and alerts on, in Prometheus' terms. One registry per process, no global one."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

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

    def completed(self, duration_s: float, stages_s: Mapping[str, float]) -> None:
        """One recording was processed and stored."""
        self._recordings.labels("completed").inc()
        self._audio_s.inc(duration_s)
        for stage, seconds in stages_s.items():
            self._stages_s.labels(stage).observe(seconds)
        if total_s := stages_s.get("total"):
            self._factor.observe(duration_s / total_s)

    def ended(self, outcome: str) -> None:
        """One recording was not: "refused" for bad input, "failed" otherwise."""
        self._recordings.labels(outcome).inc()

    def render(self) -> bytes:
        """The Prometheus text format, version 0.0.4."""
        return generate_latest(self._registry)
