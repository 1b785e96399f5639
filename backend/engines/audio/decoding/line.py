"""One audio stream of a container on its way into its files: decoded, placed on the time line, resampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av

from backend.domain.losses import Loss, LossKind
from backend.engines.audio.decoding.clock import TOLERANCE_S, Clock
from backend.engines.audio.decoding.resampling import SAMPLE_RATE_HZ, Resampler
from backend.engines.audio.decoding.tracks import Tracks

TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
"""What stands between recordings that were joined, or behind the last packet."""
_FIRST_SILENT_TYPE = {"amrnb": 8, "amrwb": 9, "libopencore_amrnb": 8, "libopencore_amrwb": 9}
"""AMR frames of this type and above hold comfort noise or nothing (3GPP TS 26.101 and 26.201, table 1a)."""


_SWALLOWED = 8
"""A damaged packet that is so many times as long as others has swallowed those behind it."""
_TOLD_GAP_S = 0.5
"""Shorter gaps are pauses in which a telephone sends nothing."""


@dataclass(frozen=True, slots=True)
class _Gap:
    """A stretch without packets; with unread bytes in it, damage."""

    at_s: float
    seconds: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _Heard:
    """A decoded frame, and what came between it and the one before: unread bytes, undecoded seconds."""

    frame: av.AudioFrame
    stamp_s: float | None
    length_s: float
    unread_bytes: int
    undecoded_s: float


class Line:
    """Listens to one stream.

    Args:
        stream: what the packets belong to.
        tracks: where its samples go.
        clock: tells where they belong.

    Attributes:
        n_frames: how many could be decoded.
        n_damaged: packets that could not.
    """

    def __init__(self, stream: av.AudioStream, tracks: Tracks, clock: Clock) -> None:
        self.n_frames = 0
        self.n_damaged = 0
        self._clock = clock
        self._context = stream.codec_context
        self._tracks = tracks
        self._resampler = Resampler(tracks.sample_format, are_mixed=tracks.are_mixed)
        self._next: _Heard | None = None
        self._unit_s: float | None = None
        self._unread_bytes = self._read_bytes = self._n_packets = 0
        self._damaged_s = self._damaged_at_s = self._undecoded_s = 0.0
        self._gaps: list[_Gap] = []
        tracks.skip_to(round(clock.end_s * SAMPLE_RATE_HZ))

    @property
    def n_samples(self) -> int:
        """How long its tracks are."""
        return self._tracks.n_samples

    def feed(self, packet: av.Packet[Any], unread_bytes: int = 0) -> None:
        """Decode a packet and write what is complete. A damaged one leaves a gap of its length.

        Args:
            unread_bytes: bytes of the file before it that belong to no packet.
        """
        self._read_bytes += packet.size
        self._n_packets += 1
        self._unread_bytes += unread_bytes
        try:
            frames = self._context.decode(packet)
        except (av.error.FFmpegError, ValueError) as error:
            reraise_out_of_memory(error)
            self._note_undecoded(packet)
            return
        for frame in frames:
            self.n_frames += 1
            self._advance(self._heard(frame))

    def finish(self) -> float:
        """Write what is left.

        Returns:
            Where the stream ends on the recording's time line, in seconds.
        """
        self._advance(None)
        self._write_rest()
        if self._undecoded_s > TOLERANCE_S:
            self._clock.place(None, self._undecoded_s)
        return self._clock.end_s

    def losses(self) -> list[Loss]:
        """What of the stream was not heard."""
        found = [Loss(LossKind.CLOCK, at_s, gap_s) for at_s, gap_s in self._clock.left_out]
        if self.n_damaged:
            found.append(Loss(LossKind.DAMAGED, self._damaged_at_s, self._damaged_s or None, self.n_damaged))
        unread = [gap for gap in self._gaps if gap.size_bytes]
        silent = [gap for gap in self._gaps if not gap.size_bytes]
        return found + _told(LossKind.SKIPPED, unread) + _told(LossKind.GAP, silent)

    def _heard(self, frame: av.AudioFrame) -> _Heard:
        pts = frame.pts
        if self._unit_s is None and frame.time_base is not None:
            self._unit_s = float(frame.time_base)  # asking each frame would take longer than resampling it
        stamp_s = None if pts is None or self._unit_s is None else pts * self._unit_s
        unread_bytes, self._unread_bytes = self._unread_bytes, 0
        undecoded_s, self._undecoded_s = self._undecoded_s, 0.0
        return _Heard(frame, stamp_s, frame.samples / frame.sample_rate, unread_bytes, undecoded_s)

    def _advance(self, following: _Heard | None) -> None:
        """Write the frame before, whose time stamp the following one confirms."""
        heard, self._next = self._next, following
        if heard is None:
            return
        gap_s = self._clock.place(heard.stamp_s, heard.length_s, following.stamp_s if following else None)
        if gap_s:
            self._leave_gap(heard, gap_s)
        try:
            self._tracks.write(self._resampler.resample(heard.frame))
        except (av.error.FFmpegError, ValueError) as error:
            reraise_out_of_memory(error)
            self._count_damage(heard.length_s)

    def _leave_gap(self, heard: _Heard, gap_s: float) -> None:
        until_s = self._clock.end_s - heard.length_s
        is_late_beginning = not self._tracks.has_sound and not heard.unread_bytes
        if gap_s - heard.undecoded_s >= _TOLD_GAP_S and not is_late_beginning:
            self._gaps.append(_Gap(until_s - gap_s, gap_s, heard.unread_bytes))
        self._write_rest()
        self._tracks.skip_to(round(until_s * SAMPLE_RATE_HZ))

    def _write_rest(self) -> None:
        try:
            self._tracks.write(self._resampler.rest())
        except (av.error.FFmpegError, ValueError) as error:
            reraise_out_of_memory(error)
            self._count_damage(0.0)

    def _note_undecoded(self, packet: av.Packet[Any]) -> None:
        """A packet of silence, or a tag between two joined files, is no damage."""
        data = bytes(packet)
        if data.startswith(TAGS):
            return
        length_s = float(packet.duration * packet.time_base) if packet.duration and packet.time_base else 0.0
        if packet.size > _SWALLOWED * self._read_bytes / max(1, self._n_packets):
            length_s *= packet.size * self._n_packets / self._read_bytes
        self._undecoded_s += length_s
        silent_from = _FIRST_SILENT_TYPE.get(self._context.name)
        if silent_from is None or not data or data[0] >> 3 & 0xF < silent_from:
            self._count_damage(length_s)

    def _count_damage(self, length_s: float) -> None:
        if not self.n_damaged:
            self._damaged_at_s = self._clock.end_s
        self.n_damaged += 1
        self._damaged_s += length_s


def reraise_out_of_memory(error: Exception) -> None:
    """Raises the error if it means that the decoder may not have more memory."""
    if isinstance(error, MemoryError):
        raise error


def _told(kind: LossKind, gaps: list[_Gap]) -> list[Loss]:
    if not gaps:
        return []
    size_bytes = sum(gap.size_bytes for gap in gaps)
    return [Loss(kind, gaps[0].at_s, sum(gap.seconds for gap in gaps), len(gaps), size_bytes)]
