"""The storage layer in Prometheus' terms, measured when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backend.services.storage.config import StorageConfig
from backend.services.storage.placement.breaker import Breaker, BreakerState
from backend.services.storage.placement.placement import Placement
from backend.services.storage.spool.space import DiskSpace, SpaceState


class StorageMetrics(Collector):
    """To be registered with a registry. `store` is the store that saves go to while all is well."""

    def __init__(
        self, store: str, breaker: Breaker, space: DiskSpace, placement: Placement, config: StorageConfig
    ) -> None:
        self._store = store
        self._breaker = breaker
        self._space = space
        self._placement = placement
        self._config = config

    def collect(self) -> Iterator[Metric]:
        self._space.look()
        yield self._breaker_state()
        yield from self._disk()
        yield from self._saves()

    def _breaker_state(self) -> Metric:
        gauge = GaugeMetricFamily(
            "aperta_storage_breaker",
            "1 for the state that the store's circuit breaker is in",
            labels=["store", "state"],
        )
        for state in get_args(BreakerState):
            gauge.add_metric([self._store, state], float(self._breaker.state == state))
        return gauge

    def _disk(self) -> Iterator[Metric]:
        if self._space.free_bytes is not None:
            yield GaugeMetricFamily(
                "aperta_storage_disk_free_bytes", "Free space on the disk of UPLOAD_DIR", value=self._space.free_bytes
            )
        limits = GaugeMetricFamily(
            "aperta_storage_disk_limit_bytes",
            "Free space below which uploads are warned of, or refused",
            labels=["limit"],
        )
        limits.add_metric(["soft"], self._config.disk_soft_limit_bytes)
        limits.add_metric(["hard"], self._config.disk_hard_limit_bytes)
        yield limits
        state = GaugeMetricFamily("aperta_storage_disk", "1 for the state that the disk is in", labels=["state"])
        for name in get_args(SpaceState):
            state.add_metric([name], float(self._space.state == name))
        yield state

    def _saves(self) -> Iterator[Metric]:
        failures = CounterMetricFamily(
            "aperta_storage_failures", "Saves that the store did not take, by kind of error", labels=["store", "error"]
        )
        for kind, count in sorted(self._placement.failures.items()):
            failures.add_metric([self._store, kind], count)
        yield failures
        yield CounterMetricFamily(
            "aperta_storage_fallbacks", "Objects that went to the local folder instead", value=self._placement.fallbacks
        )
