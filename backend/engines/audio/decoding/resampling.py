"""Frames to packed frames at 16 kHz, and to one channel where channels are mixed."""

from __future__ import annotations

import av

from backend.engines.audio.decoding.mixing import Mixer
from backend.engines.audio.probe import MAX_CHANNELS

SAMPLE_RATE_HZ = 16_000
EXACT_IN_16_BITS = {"u8", "u8p", "s16", "s16p"}


def sample_format(context: av.AudioCodecContext, *, are_mixed: bool) -> str:
    """16 bits where nothing is lost by them, which halves the space; else float."""
    is_kept = context.sample_rate == SAMPLE_RATE_HZ and (context.channels == 1 or not are_mixed)
    is_exact = context.format is not None and context.format.name in EXACT_IN_16_BITS
    return "s16" if is_kept and is_exact else "flt"


class Resampler:
    """To 16 kHz; starts anew where the stream changes its rate or layout in the middle.

    Packed, because PyAV reads past the end of a planar frame's list of eight channels.

    Args:
        sample_format: "s16" or "flt".
        are_mixed: whether all channels become one.
    """

    def __init__(self, sample_format: str, *, are_mixed: bool) -> None:
        self._format = sample_format
        self._mixer = Mixer() if are_mixed else None
        self._shape: tuple[object, ...] | None = None
        self._inner: av.AudioResampler | None = None

    def resample(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """Take one frame in. Raises ValueError for more channels than any recording has."""
        channels = frame.layout.nb_channels
        if channels > MAX_CHANNELS:
            raise ValueError(f"a frame with {channels} channels")
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        rest = self.rest() if self._inner is not None and shape != self._shape else []
        if self._inner is None:
            # The mixer reads floats.
            inner_format = "flt" if self._mixer and channels > 1 else self._format
            self._shape = shape
            self._inner = av.AudioResampler(format=inner_format, layout=frame.layout, rate=SAMPLE_RATE_HZ)
        return rest + self._mix(self._inner.resample(frame))

    def rest(self) -> list[av.AudioFrame]:
        """What is left before a pause or the end."""
        inner, self._inner = self._inner, None
        rest = self._mix(inner.resample(None)) if inner else []
        return rest + (self._mixer.rest() if self._mixer else [])

    def _mix(self, frames: list[av.AudioFrame]) -> list[av.AudioFrame]:
        return self._mixer.mix(frames) if self._mixer else frames
