"""A recording's samples: decoded once to mono 16 kHz, kept in an unlinked temporary file, read in windows as float32.

A recording's length must not decide how much memory a server needs, so both branches of the pipeline read windows from
one spool file; the file has no name, so a killed process leaves nothing behind. The decoding itself happens in a
separate process (the package decoder).
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.losses import Loss, LossKind
from backend.engines.audio.allowance import Allowance
from backend.engines.audio.probe import MAX_CHANNELS, MediaInfo, read_info
from backend.engines.audio.probe import probe as probe
from backend.engines.audio.process import NONSENSE, run_decoder
from backend.engines.audio.sameness import distinct, same_channel, same_sound
from backend.engines.progress import Progress, ignore_progress
from backend.errors import InvalidAudio

SAMPLE_RATE_HZ = 16_000
MAX_DECODE_S = 900.0
MIN_DECODE_S, BYTES_PER_DECODE_S = 20.0, 100_000
"""A small file gets less: the minimum, and a second more for every 100 kB. Speech at 8 kbit/s needs a tenth of that."""
SAMPLE_TYPES: dict[str, type[np.float32 | np.int16]] = {"flt": np.float32, "s16": np.int16}
MAX_TRACKS = MAX_CHANNELS
"""A recording has at most so many channels or streams that are heard apart."""
MAX_LOSSES, MAX_WORDS_LENGTH = 50, 200


class Audio:
    """Decoded samples: (n_samples,) float32, mono, 16 kHz, [-1, 1], read in windows. Safe to read from many threads.

    Args:
        file: the samples; closed by `close`.
        losses: what of the recording is not in them.
        sample_format: how the file holds them: "flt", or "s16" where nothing is lost by it.
    """

    def __init__(
        self,
        file: IO[bytes],
        n_samples: int,
        info: MediaInfo,
        losses: tuple[Loss, ...] = (),
        *,
        sample_format: str = "flt",
    ) -> None:
        self._file = file
        self._type = SAMPLE_TYPES[sample_format]
        self.n_samples = n_samples
        self.info = info
        self.losses = losses

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


class MixedAudio(Audio):
    """Several streams of one recording, heard together.

    Args:
        streams: closed with this.
    """

    def __init__(self, streams: Sequence[Audio]) -> None:
        first = streams[0]
        self._streams = streams
        self.n_samples, self.info, self.losses = first.n_samples, first.info, first.losses

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        samples = self._streams[0].read(start, stop)
        for stream in self._streams[1:]:
            samples += stream.read(start, stop)
        return np.clip(samples, -1.0, 1.0, out=samples)

    def close(self) -> None:
        for stream in self._streams:
            stream.close()


def decode_tracks(
    path: Path,
    *,
    separate: bool,
    max_s: float,
    stream: int | None = None,
    max_decode_s: float = MAX_DECODE_S,
    spool_dir: Path | None = None,
    allowance: Allowance | None = None,
    progress: Progress = ignore_progress,
) -> tuple[Audio, ...]:
    """Decode a file to mono 16 kHz: everything mixed, or one track per distinct voice.

    A sample stands where a player plays it: gaps in the recording's own time are silence.

    Args:
        path: a local file; the bytes decide what it is, not the name.
        separate: one track per audio stream, or per channel if there is only one; what says the same counts once.
            Otherwise one track of all channels and streams mixed.
        max_s: stop with `TooLarge` once this many seconds of recording were decoded; headers are not believed.
        stream: the only audio stream to listen to, counted from 0; default: all that are no translations or
            commentaries of another.
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
    order = {
        "path": str(path.absolute()),
        "separate": separate,
        "stream": stream,
        "max_samples": round(max_s * SAMPLE_RATE_HZ),
    }
    with (allowance or Allowance()).granted(path, progress) as limits:
        tracks, are_channels = _decode({**order, **limits}, max_cpu_s, spool_dir, progress)
    try:
        heard = distinct(tracks, same_channel if are_channels else same_sound, progress)
    except BaseException:
        for track in tracks:
            track.close()
        raise
    return heard if separate or len(heard) == 1 else (MixedAudio(heard),)


def _decode(
    order: Mapping[str, object], max_cpu_s: float, spool_dir: Path | None, progress: Progress
) -> tuple[tuple[Audio, ...], bool]:
    """The tracks, and whether they are the channels of one stream."""
    with ExitStack() as opened:
        # The files outlive this function inside Audio; on any error they are closed, which also deletes them.
        files = [opened.enter_context(tempfile.TemporaryFile(dir=spool_dir)) for _ in range(MAX_TRACKS)]
        done = run_decoder(order, max_cpu_s=max_cpu_s, files=files, progress=progress)
        info, losses, places = read_info(done), _read_losses(done), _read_places(done, files)
        for number, unused in enumerate(files):
            if number not in places:
                unused.close()
        opened.pop_all()
    tracks = [
        Audio(files[number], done["n_samples"], info, losses, sample_format=sample_format)
        for number, sample_format in places.items()
    ]
    return tuple(tracks), done.get("are_channels") is True


def _read_places(done: Mapping[str, Any], files: Sequence[IO[bytes]]) -> dict[int, str]:
    """Compare what the decoder says it wrote with the files: the recording may have taken it over.

    Returns:
        The number of each file with samples, and their format.

    Raises:
        InvalidAudio
    """
    try:
        places, n_samples = {int(number): str(name) for number, name in done["tracks"]}, done["n_samples"]
        sizes = {_count_samples(files[number], SAMPLE_TYPES[name]) for number, name in places.items()}
    except (LookupError, TypeError, ValueError) as error:
        raise InvalidAudio(NONSENSE) from error
    if not isinstance(n_samples, int) or min(places, default=-1) < 0 or sizes != {n_samples}:
        raise InvalidAudio(NONSENSE)
    return places


def _count_samples(file: IO[bytes], sample_type: type[np.float32 | np.int16]) -> float:
    return os.fstat(file.fileno()).st_size / np.dtype(sample_type).itemsize


def _read_losses(done: Mapping[str, Any]) -> tuple[Loss, ...]:
    """What the decoder says of losses; users read it, so that neither numbers nor words may be anything.

    Raises:
        InvalidAudio
    """
    try:
        return tuple(_read_loss(said) for said in done["losses"][:MAX_LOSSES])
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise InvalidAudio(NONSENSE) from error


def _read_loss(said: Mapping[str, Any]) -> Loss:
    at_s, seconds = float(said["at_s"]), None if said["seconds"] is None else float(said["seconds"])
    if not math.isfinite(at_s) or not math.isfinite(seconds or 0.0):
        raise ValueError("a time that is no number")
    words = "".join(character for character in str(said["what"]) if character.isprintable())
    size_bytes = int(said["size_bytes"])
    return Loss(LossKind(said["kind"]), at_s, seconds, int(said["count"]), size_bytes, words[:MAX_WORDS_LENGTH])


def _floats(samples: NDArray[Any]) -> NDArray[np.float32]:
    floats = samples.astype(np.float32, copy=False)
    return floats / np.float32(32_768) if samples.dtype == np.int16 else floats


def _mended(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """NaN, infinity and overshoot (lossy codecs, float sources) become finite samples in [-1, 1]."""
    if len(samples) and not (samples.min() >= -1.0 and samples.max() <= 1.0):
        np.nan_to_num(samples, copy=False, nan=0.0, posinf=1.0, neginf=-1.0)
        np.clip(samples, -1.0, 1.0, out=samples)
    return samples
