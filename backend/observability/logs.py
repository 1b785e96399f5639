"""The format of log lines, and the ids of request and job in them. The ids travel in the context.

No log line holds a transcript or a secret; a test checks this.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from types import MappingProxyType

from opentelemetry import trace
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

TEXT = "%(asctime)s %(levelname)-8s %(name)s: %(message)s"
LIBRARY_ATTRIBUTES = ("color_message", "applicationID", "applicationVersion", "executorID")
"""Attributes that uvicorn and DBOS add to their records; left out."""

_ids: ContextVar[Mapping[str, str]] = ContextVar("ids of log lines", default=MappingProxyType({}))


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


@contextmanager
def log_context(**ids: str) -> Iterator[None]:
    """Give every log line of this block ids, such as `job_id`; tasks and threads started in it take them along."""
    token = _ids.set({**_ids.get(), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


def current_ids() -> dict[str, str]:
    """The ids of the context, and of the trace if one is being recorded."""
    span = trace.get_current_span().get_span_context()
    traced = {"trace_id": trace.format_trace_id(span.trace_id)} if span.is_valid else {}
    return {**_ids.get(), **traced}


def log_handler(log_format: LogFormat) -> logging.Handler:
    """A handler that writes to stderr, one line an event."""
    handler = logging.StreamHandler()
    if log_format == LogFormat.TEXT:
        handler.setFormatter(logging.Formatter(TEXT))
        return handler
    handler.addFilter(_add_ids)
    handler.setFormatter(
        JsonFormatter(
            ["levelname", "name", "message"],
            timestamp="time",
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
            reserved_attrs=[*RESERVED_ATTRS, *LIBRARY_ATTRIBUTES],
            json_ensure_ascii=False,
        )
    )
    return handler


def _add_ids(record: logging.LogRecord) -> bool:
    for name, value in current_ids().items():
        setattr(record, name, value)
    return True
