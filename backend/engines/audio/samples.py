"""A recording's samples: decoded once to mono 16 kHz, kept in an unlinked temporary file, read in windows as float32.

A recording's length must not decide how much memory a server needs, so both branches of the pipeline read windows from
one spool file; the file has no name, so a killed process leaves nothing behind. The decoding itself happens in a
separate process (decoder.py).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from backend.engines.audio.allowance import Allowance
from backend.engines.audio.probe import MAX_CHANNELS, MediaInfo, read_info
from backend.engines.audio.probe import probe as probe
from backend.engines.audio.process import NONSENSE, run_decoder
from backend.engines.progress import Progress, ignore_progress
from backend.errors import InvalidAudio

SAMPLE_RATE_HZ = 16_000
MAX_DECODE_S = 900.0
MIN_DECODE_S, BYTES_PER_DECODE_S = 20.0, 100_000
"""A small file gets less: the minimum, and a second more for every 100 kB. Speech at 8 kbit/s needs a tenth of that."""
SAMPLE_TYPES: dict[str, type[np.float32 | np.int16]] = {"flt": np.float32, "s16": np.int16}
COMPARED_SAMPLES = 60 * SAMPLE_RATE_HZ
SAME_CHANNEL_DIFFERENCE = 0.01
"""Two channels are one if their difference has less than this part of their level (codecs make copies differ)."""


class Audio:
    """Decoded samples: (n_samples,) float32, mono, 16 kHz, [-1, 1], read in windows. Safe to read from many threads.

    Args:
        file: the samples; closed by `close`.
        sample_format: how the file holds them: "flt", or "s16" where nothing is lost by it.
    """

    def __init__(
        self,
        file: IO[bytes],
        n_samples: int,
        info: MediaInfo,
        damaged_packets: int = 0,
        *,
        sample_format: str = "flt",
    ) -> None:
        self._file = file
        self._type = SAMPLE_TYPES[sample_format]
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
        samples = np.empty(max(0, stop - start), dtype=self._type)
        view = samples.data.cast("B") if len(samples) else memoryview(b"")
        offset = start * samples.itemsize
        while len(view):
            count = os.preadv(self._file.fileno(), [view], offset)
            if count == 0:
                raise OSError("the decoded audio is shorter than it was: its temporary file was cut")
            view, offset = view[count:], offset + count
        return _mended(_floats(samples))

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
    allowance: Allowance | None = None,
    progress: Progress = ignore_progress,
) -> tuple[Audio, ...]:
    """Decode the first audio stream of a file to mono 16 kHz: mixed, or one track per distinct channel.

    Args:
        path: a local file; the bytes decide what it is, not the name.
        separate: one track per channel, identical channels once; otherwise one track of all channels mixed.
        max_s: stop with `TooLarge` once this many seconds of recording were decoded; headers are not believed.
        max_decode_s: stop with `TooLarge` after this many seconds of computing; a small file gets less.
        spool_dir: where the temporary files for the samples go; default: the system's folder.
        allowance: what the decoder may use; default: confined as far as the machine can.
        progress: called several times a second; an exception it raises ends the decoding.

    Raises:
        EmptyAudio, UnsupportedMedia, InvalidAudio: as `probe`; also when no sample comes out.
        TooLarge: more than `max_s` seconds or the allowed bytes, or out of proportion to its size.
        StorageFull: no space for the samples.
        EngineUnavailable: the decoder was killed from outside, or cannot be confined as required.
    """
    max_cpu_s = min(max_decode_s, MIN_DECODE_S + path.stat().st_size / BYTES_PER_DECODE_S)
    order = {"path": str(path.absolute()), "max_samples": round(max_s * SAMPLE_RATE_HZ)}
    with (allowance or Allowance()).granted(path, progress) as limits:
        tracks = _decode({**order, **limits}, MAX_CHANNELS if separate else 1, max_cpu_s, spool_dir, progress)
    try:
        return _distinct(tracks, progress)
    except BaseException:
        for track in tracks:
            track.close()
        raise


def _decode(
    order: Mapping[str, object], max_tracks: int, max_cpu_s: float, spool_dir: Path | None, progress: Progress
) -> tuple[Audio, ...]:
    with ExitStack() as files:
        # The files outlive this function inside Audio; on any error they are closed, which also deletes them.
        spools = [files.enter_context(tempfile.TemporaryFile(dir=spool_dir)) for _ in range(max_tracks)]
        done = run_decoder(order, max_cpu_s=max_cpu_s, files=spools, progress=progress)
        info = read_info(done)
        _check_result(done, spools)
        _check_length(info, done["n_samples"])
        tracks = spools[: done["tracks"]]
        for unused in spools[len(tracks) :]:
            unused.close()
        files.pop_all()
    facts, sample_format = (done["n_samples"], info, done["damaged_packets"]), done["sample_format"]
    return tuple(Audio(track, *facts, sample_format=sample_format) for track in tracks)


def _check_result(done: Mapping[str, Any], files: Sequence[IO[bytes]]) -> None:
    """Compare what the decoder says it wrote with the files: the recording may have taken it over.

    Raises:
        InvalidAudio
    """
    numbers = [done.get("tracks"), done.get("n_samples"), done.get("damaged_packets")]
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise InvalidAudio(NONSENSE)
    sample_type = SAMPLE_TYPES.get(str(done.get("sample_format")))
    if sample_type is None or not 1 <= done["tracks"] <= len(files):
        raise InvalidAudio(NONSENSE)
    size_bytes = done["n_samples"] * np.dtype(sample_type).itemsize
    if any(os.fstat(file.fileno()).st_size != size_bytes for file in files[: done["tracks"]]):
        raise InvalidAudio(NONSENSE)


def _floats(samples: NDArray[Any]) -> NDArray[np.float32]:
    floats = samples.astype(np.float32, copy=False)
    return floats / np.float32(32_768) if samples.dtype == np.int16 else floats


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
    claimed_s = info.stated_duration_s
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
