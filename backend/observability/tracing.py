"""Traces for OpenTelemetry. Recorded only where OTEL_EXPORTER_OTLP_ENDPOINT says who collects them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace

from backend import __version__

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def set_up_tracing() -> None:
    """Send traces as OpenTelemetry's own variables say, which its SDK reads; without an endpoint nothing happens.

    A process that was started by `opentelemetry-instrument` is set up already and stays as it is.
    """
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    if off or not any(os.environ.get(name) for name in ENDPOINTS):
        return
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger.warning("traces are not sent: run `pip install 'aperta[otel]'`, or unset %s", " and ".join(ENDPOINTS))
        return
    ours = {"service.name": "aperta", "service.version": __version__}
    provider = TracerProvider(resource=Resource.create({**ours, **OTELResourceDetector().detect().attributes}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@contextmanager
def span(name: str, **attributes: str | int | float) -> Iterator[None]:
    """Record a piece of work as a span of the current trace; an error's text stays out of it."""
    tracer = trace.get_tracer("aperta", __version__)
    with tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield
        except Exception as error:
            current.set_attribute("error.type", type(error).__name__)
            current.set_status(trace.StatusCode.ERROR)
            raise
