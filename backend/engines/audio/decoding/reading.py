"""Reading a container from its beginning to its end: its packets, its time line, and what belongs to no packet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import av

from backend.engines.audio.decoding.line import reraise_out_of_memory

Packet: TypeAlias = "av.Packet[Any]"

MAX_RESUMED = 1000
"""How often reading goes on behind a place where the container breaks off."""
MIN_SKIPPED_BYTES = 400
"""Less than this between two packets is the container's own."""
_PACKET_AFTER_PACKET = {"ogg", "matroska,webm"}
"""Containers with time stamps of which no more than headers stands between packets."""
_STATE_DURATION = {"flac", "aiff", "w64", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv"}
"""Containers whose header states the length; others estimate it or leave it out."""


class Reader:
    """Reads the packets of all streams in the order of the file.

    Attributes:
        is_broken: whether the container broke off somewhere.
        last_byte: behind the last packet, from the container's beginning.
    """

    def __init__(self, container: av.container.InputContainer) -> None:
        self.is_broken = False
        self.last_byte = 0
        self._first_byte: int | None = None
        self._read_bytes = 0
        self._container = container
        self._watches_bytes = container.format.name in _PACKET_AFTER_PACKET
        self._page_at = self._page_bytes = 0

    def packets(self) -> Iterator[tuple[Packet, int]]:
        """Each packet, and the bytes in front of it that belong to none.

        Where the container breaks off, reading goes on behind the place if the demuxer can.
        """
        for _ in range(MAX_RESUMED):
            before = self.last_byte
            try:
                for packet in self._container.demux():
                    yield packet, self._account(packet)
                return
            except av.error.FFmpegError as error:
                reraise_out_of_memory(error)
                self.is_broken = True
                if self.last_byte == before:
                    return

    def unread_bytes(self, size_bytes: int) -> int:
        """How much of a container of this size belongs to no packet, behind its first."""
        return size_bytes - (self._first_byte or 0) - self._read_bytes

    def _account(self, packet: Packet) -> int:
        if packet.pos is None or packet.pos < 0:
            return 0
        self._first_byte = packet.pos if self._first_byte is None else self._first_byte
        self._read_bytes += packet.size
        self.last_byte = max(self.last_byte, packet.pos + packet.size)
        if packet.pos == self._page_at:  # Ogg packets stand at their page's place
            self._page_bytes += packet.size
            return 0
        unread = packet.pos - self._page_at - self._page_bytes if self._page_bytes else 0
        self._page_at, self._page_bytes = packet.pos, packet.size
        return unread if self._watches_bytes and unread >= MIN_SKIPPED_BYTES else 0


def zero_s(container: av.container.InputContainer) -> float:
    """The time stamp that players show as 0: the first of sound and pictures."""
    starts = [
        float(stream.start_time * stream.time_base)
        for stream in played(container)
        if stream.start_time is not None and stream.time_base
    ]
    return min(starts, default=0.0)


def whole_s(container: av.container.InputContainer) -> float | None:
    """The length that the container claims or FFmpeg estimates, pictures included."""
    return container.duration / 1_000_000 if container.duration and container.duration > 0 else None


def stated_s(container: av.container.InputContainer, stream: av.AudioStream) -> float | None:
    """Where a stream ends on the time line, if the container's header says so."""
    if container.format.name not in _STATE_DURATION:
        return None
    if stream.duration and stream.time_base and container.format.name != "matroska,webm":
        start = (stream.start_time or 0) * stream.time_base
        return float(start + stream.duration * stream.time_base) - zero_s(container)
    return whole_s(container)


def played(container: av.container.InputContainer) -> list[av.AudioStream | av.VideoStream]:
    """The streams that have a time line: sound and pictures, but no cover."""
    return [*container.streams.audio, *(stream for stream in container.streams.video if not _is_cover(stream))]


def _is_cover(stream: av.VideoStream) -> bool:
    return bool(stream.disposition & type(stream.disposition).attached_pic)
