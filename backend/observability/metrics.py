"""What an operator graphs and alerts on, in Prometheus' terms. One registry per process, no global one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import anyio.to_thread
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from backend.errors import AppError

logger = logging.getLogger(__name__)

Ask = Callable[[], Coroutine[Any, Any, Sequence[Metric]]]
ANSWERED_WITHIN_S = 5.0

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
        self._speech_s = Counter("aperta_speech_seconds", "Seconds of speech heard", registry=self._registry)
        self._without_words_s = Counter(
            "aperta_speech_without_words_seconds",
            "Seconds of speech that have no words in the transcript",
            registry=self._registry,
        )
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
        self._drained_objects = Counter(
            "aperta_drained_objects", "Objects that moved from the local disk to S3", registry=self._registry
        )
        self._drained_bytes = Counter(
            "aperta_drained_bytes", "Bytes moved from the local disk to S3", registry=self._registry
        )

    def register(self, collector: Collector) -> None:
        """Show the metrics of another part of Aperta as well."""
        self._registry.register(collector)

    def register_asking(self, ask: Ask) -> None:
        """Show metrics that are asked for on the event loop that runs now; they are left out if the answer fails."""
        self._registry.register(_AskingCollector(ask, asyncio.get_running_loop()))

    def completed(
        self, duration_s: float, stages_s: Mapping[str, float], speech_s: float = 0.0, without_words_s: float = 0.0
    ) -> None:
        """One recording was processed and stored.

        Args:
            duration_s: of the recording.
            stages_s: seconds that each stage took.
            speech_s: seconds in which somebody spoke.
            without_words_s: how many of them have no words in the transcript.
        """
        self._speech_s.inc(speech_s)
        self._without_words_s.inc(without_words_s)
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

    async def render(self) -> bytes:
        """The Prometheus text format, version 0.0.4. Collected in a thread, because collectors look at disks."""
        return await anyio.to_thread.run_sync(generate_latest, self._registry)


class _AskingCollector(Collector):
    """Waits, in the thread that collects, for an answer from the event loop."""

    def __init__(self, ask: Ask, loop: asyncio.AbstractEventLoop) -> None:
        self._ask = ask
        self._loop = loop

    def collect(self) -> Iterator[Metric]:
        answer = asyncio.run_coroutine_threadsafe(self._ask(), self._loop)
        try:
            metrics = answer.result(ANSWERED_WITHIN_S)
        except (AppError, TimeoutError) as error:
            answer.cancel()
            logger.debug("metrics are left out: %s", error)
            return
        yield from metrics
