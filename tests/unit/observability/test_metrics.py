"""Metrics on a port of their own."""

from __future__ import annotations

import httpx

from backend.observability.metrics import Metrics
from tests.support.servers import free_port


def test_metrics_are_served_on_the_address_that_was_asked_for() -> None:
    port = free_port()
    with Metrics().served(("127.0.0.2", port)):
        assert "aperta_recordings" in httpx.get(f"http://127.0.0.2:{port}/metrics").text
        try:
            httpx.get(f"http://127.0.0.1:{port}/metrics")
        except httpx.ConnectError:
            return
    raise AssertionError("another address answers too")
