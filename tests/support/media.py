"""Recordings that tests make themselves: tones in every container, and hostile files."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from backend.engines.audio.samples import Audio, decode_tracks


def tone(seconds: float, rate_hz: int = 16_000, channels: int = 1, frequency_hz: float = 440.0) -> NDArray[np.float32]:
    """(channels, n) float32; every channel the same sine at half level."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    wave = (0.5 * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)
    return np.tile(wave, (channels, 1))


def silence(seconds: float, rate_hz: int = 16_000) -> NDArray[np.float32]:
    return np.zeros((1, round(seconds * rate_hz)), dtype=np.float32)


def write(
    path: Path,
    samples: NDArray[np.float32],
    *,
    rate_hz: int = 16_000,
    codec: str = "pcm_s16le",
    container: str | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode (channels, n) float32 samples."""
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(samples)]
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout=layout)
        context = stream.codec_context
        context.format = (av.Codec(codec, "w").audio_formats or [context.format])[0]
        context.bit_rate = 64_000 * len(samples)
        context.open()
        resampler = av.AudioResampler(context.format, layout, rate_hz, frame_size=context.frame_size or None)
        interleaved = np.ascontiguousarray(samples.T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
        frame.rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), 0
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            output.mux(stream.encode(piece))
    return path


def wav_bytes(data: bytes, *, kind: int = 1, bits: int = 16, rate_hz: int = 16_000) -> bytes:
    """A mono WAV file around raw little-endian samples; kind 1 is PCM, 3 is float."""
    block = bits // 8
    form = struct.pack("<HHIIHH", kind, 1, rate_hz, rate_hz * block, block, bits)
    chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def decode(path: Path, **options: Any) -> Audio:
    """Decode a recording with its channels mixed; options as `decode_tracks`."""
    return decode_tracks(path, separate=False, **options)[0]
