"""The server's connections: how many there are, and which are closed because their clients neither ask nor read.

Uvicorn itself would wait without an end for a request, and for a client that does not take its answer.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from backend.api.middleware.body_limits import LEAST_BYTES_PER_S
from backend.api.middleware.descriptors import RareLine
from backend.api.middleware.peers import TrustedPeers, peer_name

MAX_HEAD_BYTES = 128 * 1024
"""Request line and headers, or trailers: the parser collects them in memory and has no limit."""
MAX_PIPELINED = 64
"""Requests of one connection that wait for the answer to an earlier one."""
LOOK_EVERY_S = 1.0
SILENT_S = 1.0
"""A connection without progress for this long gives way to a new one, if there is no place left."""
DRAIN_LOOK_S = 0.05
_REFUSAL = b"There are too many connections. Try again in a moment."


class CountedTransport:
    """A transport that knows how many bytes have left it for the client. The rest is the transport's own."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._written_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write, unless the connection has been closed: then the bytes have no reader."""
        if self._transport.is_closing():
            return
        self._written_bytes += len(data)
        self._transport.write(data)

    def reset(self) -> None:
        """Close the connection and forget what its client has not taken; the kernel would keep that for minutes."""
        with suppress(OSError), socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno())) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    @property
    def pending_bytes(self) -> int:
        return self._transport.get_write_buffer_size()

    @property
    def gone_bytes(self) -> int:
        return self._written_bytes - self.pending_bytes


@dataclass(slots=True)
class _Progress:
    """What is known of one connection. `stretch` is when the present stretch of writing began, and with what."""

    peer: str
    moved_at: float
    gone_bytes: int = 0
    stretch: tuple[float, int, int] | None = None


@dataclass(slots=True)
class Connections:
    """All connections of a server; looked at once a second while there are any.

    Args:
        most: how many there may be. For one more, the one that was silent longest is closed.
        most_per_peer: the same for each peer, except trusted proxies.
        stall_timeout_s: in each stretch of this length, a client must take some of its answer.
    """

    most: int
    most_per_peer: int
    stall_timeout_s: float
    _open: dict[TimedProtocol, _Progress] = field(default_factory=dict)
    _peers: Counter[str] = field(default_factory=Counter)
    _timer: asyncio.TimerHandle | None = None
    _full: RareLine = field(default_factory=RareLine)

    def admit(self, connection: TimedProtocol, peer: str, *, is_trusted: bool) -> bool:
        """Add a connection, if there is a place for it or a silent one gives its place up."""
        own_full = not is_trusted and self._peers[peer] >= self.most_per_peer
        if own_full or len(self._open) >= self.most:
            self._full.error(
                "%d connections are open, %d of them from %s: silent ones are closed, others refused (MAX_CONNECTIONS, "
                "MAX_CONNECTIONS_PER_PEER)",
                len(self._open),
                self._peers[peer],
                peer,
            )
            if not self._close_a_silent_one(peer if own_full else None, connection.loop.time()):
                return False
        self._open[connection] = _Progress(peer, connection.loop.time())
        self._peers[peer] += 1
        self._look_later(connection.loop)
        return True

    def remove(self, connection: TimedProtocol) -> None:
        if (progress := self._open.pop(connection, None)) is None:
            return
        self._peers[progress.peer] -= 1
        if not self._peers[progress.peer]:
            del self._peers[progress.peer]

    def note_request(self, connection: TimedProtocol) -> None:
        """A request is in work, or has ended: the connection is not silent."""
        if (progress := self._open.get(connection)) is not None:
            progress.moved_at = connection.loop.time()

    def _close_a_silent_one(self, peer: str | None, now: float) -> bool:
        silent = [
            (progress.moved_at, connection)
            for connection, progress in self._open.items()
            if peer in (None, progress.peer) and now - progress.moved_at >= SILENT_S and connection.waits_for_client
        ]
        if not silent:
            return False
        _, connection = min(silent, key=lambda found: found[0])
        self.remove(connection)
        connection.counted.reset()
        return True

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is None:
            self._timer = loop.call_later(LOOK_EVERY_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        for connection, progress in [*self._open.items()]:
            if self._is_stalled(progress, connection.counted, loop.time()):
                connection.counted.reset()
        if self._open:
            self._look_later(loop)

    def _is_stalled(self, progress: _Progress, transport: CountedTransport, now: float) -> bool:
        pending_bytes, gone_bytes = transport.pending_bytes, transport.gone_bytes
        if gone_bytes - progress.gone_bytes >= LEAST_BYTES_PER_S:
            progress.gone_bytes, progress.moved_at = gone_bytes, now
        if not pending_bytes:
            progress.stretch = None
            return False
        if progress.stretch is None:
            progress.stretch = (now, gone_bytes, pending_bytes)
            return False
        began_at, gone_before_bytes, pending_before_bytes = progress.stretch
        if now - began_at < self.stall_timeout_s:
            return False
        progress.stretch = (now, gone_bytes, pending_bytes)
        least_bytes = min(pending_before_bytes, LEAST_BYTES_PER_S * self.stall_timeout_s)
        return gone_bytes - gone_before_bytes < least_bytes


class TimedProtocol(HttpToolsProtocol):
    """HTTP/1.1 as uvicorn speaks it; a connection without a complete request head in time is closed.

    The same time is left to a client that goes on sending a body after its answer, so that it can still read that.
    Pipelined requests are answered one after the other, each once the answer before it has left.
    """

    open_connections: Connections
    head_timeout_s = 30.0
    counted: CountedTransport
    _head_timer: asyncio.TimerHandle | None = None
    _unparsed_bytes = 0

    @property
    def waits_for_client(self) -> bool:
        """Whether nothing goes on here before the client sends a request or takes its answer."""
        return self.cycle is None or self.cycle.response_complete or self.counted.pending_bytes > 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        self.counted = CountedTransport(transport)
        super().connection_made(self.counted)  # type: ignore[arg-type]  # it has all that is asked of a transport
        host = self.client[0] if self.client else ""
        trusted = not host or host in TrustedPeers(self.config.forwarded_allow_ips)
        if self.open_connections.admit(self, peer_name(host), is_trusted=trusted):
            self._await_head()
        else:
            self._refuse()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self.open_connections.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
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
        if len(self.pipeline) >= MAX_PIPELINED:
            self.counted.reset()
        if not self.transport.is_closing():
            self.open_connections.note_request(self)
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self.open_connections.note_request(self)
        self._start_next()

    def _start_next(self) -> None:
        """Start the next pipelined request, once the client has taken the answer before it."""
        if self.pipeline and not self.transport.is_closing() and self.counted.pending_bytes:
            self.loop.call_later(DRAIN_LOOK_S, self._start_next)
            return
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()

    def _refuse(self) -> None:
        head = (
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(_REFUSAL)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + _REFUSAL)
        self.transport.close()

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


def timed_protocol(connections: Connections) -> type[TimedProtocol]:
    """A protocol class for `uvicorn.Config(http=…)`, whose connections are these."""
    attributes = {"head_timeout_s": connections.stall_timeout_s, "open_connections": connections}
    return type("TimedProtocol", (TimedProtocol,), attributes)
