"""The server's connections, closed if no request comes in time; uvicorn itself would wait for one without an end."""

from __future__ import annotations

import asyncio
import re

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 128 * 1024
"""Request line and headers, or trailers: the parser collects them in memory and has no limit."""


class TimedProtocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it; a connection without a complete request head in time is closed.

    The same time is left to a client that goes on sending a body after its answer, so that it can still read that.
    """

    head_timeout_s = 30.0
    _head_timer: asyncio.TimerHandle | None = None
    _unparsed_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            self._stop_waiting()
        elif self._unparsed_bytes > MAX_HEAD_BYTES:
            self.send_400_response("The head of the request is too large.")
        elif self.cycle is None or self.cycle.response_complete:
            self._await_head()
        else:
            self._stop_waiting()

    def on_headers_complete(self) -> None:
        self._unparsed_bytes = 0
        self._count_named_host()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        super().on_body(body)

    def _count_named_host(self) -> None:
        """A request line with a host in it (`GET http://name/`) counts as one more Host if the two differ."""
        scheme, separator, rest = self.url.partition(b"://")
        hosts = [value.lower() for name, value in self.headers if name == b"host"]
        named = re.split(rb"[/?#]", rest, maxsplit=1)[0].lower()
        if separator and scheme.isalpha() and hosts and named not in hosts:
            self.headers.append((b"host", named))

    def _await_head(self) -> None:
        """Not started anew by each byte: a head must be there in one such time."""
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_timeout_s, self.timeout_keep_alive_handler)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def timed_protocol(head_timeout_s: float) -> type[TimedProtocol]:
    """A protocol class for `uvicorn.Config(http=…)`."""
    return type("TimedProtocol", (TimedProtocol,), {"head_timeout_s": head_timeout_s})
