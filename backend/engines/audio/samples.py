"""A recording's samples: decoded once to mono 16 kHz float32, kept in an unlinked temporary file, read in windows.

A recording's length must not decide how much memory a server needs, so both branches of the pipeline read windows from
one spool file; the file has no name, so a killed process leaves nothing behind. The decoding itself happens in a
process of its own (decoder.py).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from backend.engines.audio.probe import MAX_CHANNELS, MediaInfo
from backend.engines.audio.probe import probe as probe
from backend.engines.audio.process import run_decoder
from backend.engines.progress import Progress, ignore_progress
from backend.errors import InvalidAudio

SAMPLE_RATE_HZ = 16_000
MAX_DECODE_S = 900.0
MIN_DECODE_S, BYTES_PER_DECODE_S = 20.0, 100_000
"""A small file gets less: so much, and a second more for so many bytes. Speech at 8 kbit/s needs a tenth of that."""
EXACT_DURATION = {"flac", "aiff", "w64", "mov,mp4,m4a,3gp,3g2,mj2"}
"""Demuxers whose header states the length to the sample; others estimate it or leave it out."""
COMPARED_SAMPLES = 60 * SAMPLE_RATE_HZ
SAME_CHANNEL_DIFFERENCE = 0.01
"""Two channels are one if their difference has less than this part of their level (codecs make copies differ)."""


class Audio:
    """Decoded samples: (n_samples,) float32, mono, 16 kHz, [-1, 1], read in windows. Safe to read from many threads."""

    def __init__(self, file: IO[bytes], n_samples: int, info: MediaInfo, damaged_packets: int = 0) -> None:
        self._file = file
        self.n_samples = n_samples
        self.info = info
        self.damaged_packets = damaged_packets

    @property
    def duration_s(self) -> float:
        return self.n_samples / SAMPLE_RATE_HZ

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Samples [start, stop) as a new (stop - start,) float32 array; clipped to the recording."""
        start = max(0, start)
        stop = self.n_samples if stop is None else min(stop, self.n_samples)
        samples = np.empty(max(0, stop - start), dtype=np.float32)
        view, offset = samples.data.cast("B") if len(samples) else memoryview(b""), start * 4
        while len(view):
            count = os.preadv(self._file.fileno(), [view], offset)
            if count == 0:
                raise OSError("the decoded audio is shorter than it was: its temporary file was cut")
            view, offset = view[count:], offset + count
        return _mended(samples)

    def seconds(self, start_s: float, end_s: float) -> NDArray[np.float32]:
        """Samples between two instants, as `read`."""
        return self.read(round(start_s * SAMPLE_RATE_HZ), round(end_s * SAMPLE_RATE_HZ))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Audio:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def decode_tracks(
    path: Path,
    *,
    separate: bool,
    max_s: float,
    max_decode_s: float = MAX_DECODE_S,
    spool_dir: Path | None = None,
    progress: Progress = ignore_progress,
) -> tuple[Audio, ...]:
    """Decode the first audio stream of a file to mono 16 kHz float32: mixed, or one track per distinct channel.

    Args:
        path: a local file; the bytes decide what it is, not the name.
        separate: one track per channel, identical channels once; otherwise one track of all channels mixed.
        max_s: stop with `TooLarge` once this many seconds of recording were decoded; headers are not believed.
        max_decode_s: stop with `TooLarge` after this many seconds of computing; a small file gets less.
        spool_dir: where the temporary files for the samples go; default: the system's folder.
        progress: called several times a second; an exception it raises ends the decoding.

    Raises:
        EmptyAudio, UnsupportedMedia, InvalidAudio: as `probe`; also when no sample comes out.
        TooLarge: more than `max_s` seconds, or out of proportion to its size.
        StorageFull: no space for the samples.
        EngineUnavailable: the decoder was killed from outside.
    """
    tracks = _decode(path, MAX_CHANNELS if separate else 1, max_s, max_decode_s, spool_dir, progress)
    try:
        return _distinct(tracks, progress)
    except BaseException:
        for track in tracks:
            track.close()
        raise


def _decode(
    path: Path, max_tracks: int, max_s: float, max_decode_s: float, spool_dir: Path | None, progress: Progress
) -> tuple[Audio, ...]:
    order = {"path": str(path.absolute()), "max_samples": round(max_s * SAMPLE_RATE_HZ)}
    max_cpu_s = min(max_decode_s, MIN_DECODE_S + path.stat().st_size / BYTES_PER_DECODE_S)
    with ExitStack() as files:
        # The files outlive this function inside Audio; on any error they are closed, which also deletes them.
        spools = [files.enter_context(tempfile.TemporaryFile(dir=spool_dir)) for _ in range(max_tracks)]
        done = run_decoder(order, max_cpu_s=max_cpu_s, files=spools, progress=progress)
        info = MediaInfo(**done["info"])
        _check_length(info, done["n_samples"])
        tracks = spools[: done["tracks"]]
        for unused in spools[len(tracks) :]:
            unused.close()
        files.pop_all()
    return tuple(Audio(track, done["n_samples"], info, done["damaged_packets"]) for track in tracks)


def _mended(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """NaN, infinity and overshoot (lossy codecs, float sources) become finite samples in [-1, 1]."""
    if len(samples) and not (samples.min() >= -1.0 and samples.max() <= 1.0):
        np.nan_to_num(samples, copy=False, nan=0.0, posinf=1.0, neginf=-1.0)
        np.clip(samples, -1.0, 1.0, out=samples)
    return samples


def _check_length(info: MediaInfo, n_samples: int) -> None:
    """Refuse what is visibly cut off: half a meeting must not pass for a whole one.

    Raises:
        InvalidAudio
    """
    decoded_s = n_samples / SAMPLE_RATE_HZ
    claimed_s = info.duration_s if info.format in EXACT_DURATION else None
    if claimed_s and decoded_s < 0.98 * claimed_s - 1.0:
        raise InvalidAudio(
            f"The file is truncated: its header promises {claimed_s:.1f} s, but only {decoded_s:.1f} s of sound are "
            "there. Send the whole file, or export what is left as a file of its own."
        )


def _distinct(tracks: Sequence[Audio], progress: Progress) -> tuple[Audio, ...]:
    """Tracks without those that say the same as one before; their files are closed."""
    kept: list[Audio] = []
    for track in tracks:
        if any(_same(track, other, progress) for other in kept):
            track.close()
        else:
            kept.append(track)
    return tuple(kept)


def _same(one: Audio, other: Audio, progress: Progress) -> bool:
    difference = level = 0.0
    for start in range(0, one.n_samples, COMPARED_SAMPLES):
        progress(1.0)
        a, b = (track.read(start, start + COMPARED_SAMPLES) for track in (one, other))
        difference += _energy(a - b)
        level += (_energy(a) + _energy(b)) / 2
    return difference <= SAME_CHANNEL_DIFFERENCE**2 * level


def _energy(samples: NDArray[np.float32]) -> float:
    return float(np.dot(samples, samples))
