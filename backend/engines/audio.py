"""A recording's samples: decoded once to mono 16 kHz float32, kept in an unlinked temporary file, read in windows.

A recording's length must not decide how much memory a server needs, so both branches of the pipeline read windows from
one spool file; the file has no name, so a killed process leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backend.engines.media import EXACT_DURATION, MAX_CHANNELS, MediaInfo, describe, open_media
from backend.errors import EmptyAudio, InvalidAudio, StorageFull, TooLarge

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

SAMPLE_RATE_HZ = 16_000
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
        return samples

    def seconds(self, start_s: float, end_s: float) -> NDArray[np.float32]:
        """Samples between two instants, as `read`."""
        return self.read(round(start_s * SAMPLE_RATE_HZ), round(end_s * SAMPLE_RATE_HZ))

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Audio:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def probe(path: Path) -> MediaInfo:
    """Open a file as media without decoding it.

    Raises:
        EmptyAudio: the file has no bytes.
        UnsupportedMedia: it is no audio or video, or has no audio stream, or a codec that is not built in.
        InvalidAudio: the container is damaged.
    """
    with open_media(path) as container:
        return describe(container)


def decode(path: Path, *, max_s: float, spool_dir: Path | None = None) -> Audio:
    """Decode the first audio stream of a file, its channels mixed, to mono 16 kHz float32.

    Args:
        path: a local file; the name means nothing, the bytes decide.
        max_s: stop with `TooLarge` once this many seconds were decoded; headers are not believed.
        spool_dir: where the temporary file for the samples goes; the system's place if None.

    Raises:
        EmptyAudio, UnsupportedMedia, InvalidAudio: as `probe`; also when no sample comes out.
        TooLarge: more than `max_s` seconds.
        StorageFull: no room for the samples.
    """
    with open_media(path) as container:
        return _decode(container, describe(container), 1, max_s, spool_dir)[0]


def decode_channels(path: Path, *, max_s: float, spool_dir: Path | None = None) -> tuple[Audio, ...]:
    """Decode every channel of the first audio stream by itself; channels that are the same come once.

    Arguments and errors as `decode`; `max_s` is the length of the recording.
    """
    with open_media(path) as container:
        info = describe(container)
        return _distinct(_decode(container, info, info.channels, max_s, spool_dir))


def _decode(
    container: InputContainer, info: MediaInfo, n_tracks: int, max_s: float, spool_dir: Path | None
) -> tuple[Audio, ...]:
    try:
        with ExitStack() as files:
            # The files outlive this function inside Audio; on any error they are closed, which also deletes them.
            tracks = [files.enter_context(tempfile.TemporaryFile(dir=spool_dir)) for _ in range(n_tracks)]
            n_samples, damaged = _decode_into(tracks, container, round(max_s * SAMPLE_RATE_HZ))
            _check_length(info, n_samples, damaged)
            files.pop_all()
            return tuple(Audio(track, n_samples, info, damaged) for track in tracks)
    except OSError as error:  # out here, because closing a file flushes it and may fail once more
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("No space left for the decoded samples. Free space or move UPLOAD_DIR.") from error
        raise


def _decode_into(tracks: Sequence[IO[bytes]], container: InputContainer, max_samples: int) -> tuple[int, int]:
    """Write the stream's samples, mixed into one track or each channel to its own.

    Damaged packets are skipped, as players do.

    Returns:
        Samples per track, damaged packets.
    """
    import av

    context = container.streams.audio[0].codec_context
    resampler = _Resampler(mixed=len(tracks) == 1)
    n_samples = damaged = 0
    for packet in _packets(container):
        try:
            frames = context.decode(packet) if packet else []
            resampled = [piece for frame in frames for piece in resampler.resample(frame)]
        except (av.error.FFmpegError, ValueError):
            damaged += 1
            continue
        damaged += packet is None
        n_samples += _write(tracks, resampled)
        if n_samples > max_samples:
            raise TooLarge(
                f"The recording is longer than {max_samples / SAMPLE_RATE_HZ:.0f} s of decoded audio. "
                "Split it, or raise MAX_AUDIO_SECONDS."
            )
    try:
        n_samples += _write(tracks, resampler.rest())
    except (av.error.FFmpegError, ValueError):
        damaged += 1
    for track in tracks:
        track.flush()
    return n_samples, damaged


class _Resampler:
    """To 16 kHz packed float32; starts anew where the stream changes its rate or layout in the middle.

    Packed, because PyAV reads past the end of a planar frame's list of eight channels.
    """

    def __init__(self, *, mixed: bool) -> None:
        self._mixed = mixed
        self._shape: tuple[object, ...] | None = None
        self._inner: av.AudioResampler | None = None

    def resample(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        import av

        if frame.layout.nb_channels > MAX_CHANNELS:
            raise ValueError(f"a frame with {frame.layout.nb_channels} channels")
        shape = (frame.format.name, frame.layout.name, frame.sample_rate)
        before = self._inner
        if self._inner is None or shape != self._shape:
            layout = "mono" if self._mixed else frame.layout.name
            self._shape, self._inner = shape, av.AudioResampler(format="flt", layout=layout, rate=SAMPLE_RATE_HZ)
        rest = before.resample(None) if before is not None and before is not self._inner else []
        return rest + self._inner.resample(frame)

    def rest(self) -> list[av.AudioFrame]:
        return self._inner.resample(None) if self._inner else []


def _packets(container: InputContainer) -> Iterator[av.Packet[av.AudioStream] | None]:
    """The first audio stream's packets; None where the container itself breaks off."""
    import av

    try:
        yield from container.demux(container.streams.audio[0])
    except av.error.FFmpegError:
        yield None


def _write(tracks: Sequence[IO[bytes]], frames: list[av.AudioFrame]) -> int:
    """Append resampled frames; NaN, infinity and overshoot (float sources) become finite samples in [-1, 1]."""
    written = 0
    for frame in frames:
        packed = frame.to_ndarray().reshape(-1, frame.layout.nb_channels)
        samples = np.nan_to_num(packed, nan=0.0, posinf=1.0, neginf=-1.0)
        np.clip(samples, -1.0, 1.0, out=samples)
        # A stream that loses a channel on the way leaves silence on that track.
        for number, track in enumerate(tracks):
            channel = samples[:, number] if number < samples.shape[1] else np.zeros(len(samples))
            track.write(np.ascontiguousarray(channel, dtype=np.float32).data)
        written += len(samples)
    return written


def _check_length(info: MediaInfo, n_samples: int, damaged: int) -> None:
    """Refuse what holds no sound, and what is visibly cut off: half a meeting must not pass for a whole one.

    Raises:
        EmptyAudio, InvalidAudio
    """
    if n_samples == 0 and damaged:
        raise InvalidAudio("The audio stream is damaged: not one packet can be decoded. Export the recording again.")
    if n_samples == 0:
        raise EmptyAudio(
            "The recording holds no audio samples: it is empty or was cut off before the first sound. "
            "Check the file in a player and send it again."
        )
    decoded_s = n_samples / SAMPLE_RATE_HZ
    claimed_s = info.duration_s if info.format in EXACT_DURATION else None
    if claimed_s and decoded_s < 0.98 * claimed_s - 1.0:
        raise InvalidAudio(
            f"The file is truncated: its header promises {claimed_s:.1f} s, but only {decoded_s:.1f} s of sound are "
            "there. Send the whole file, or export what is left as a file of its own."
        )


def _distinct(tracks: Sequence[Audio]) -> tuple[Audio, ...]:
    """Tracks without those that say the same as one before; their files are closed."""
    kept: list[Audio] = []
    for track in tracks:
        if any(_same(track, other) for other in kept):
            track.close()
        else:
            kept.append(track)
    return tuple(kept)


def _same(one: Audio, other: Audio) -> bool:
    difference = level = 0.0
    for start in range(0, one.n_samples, COMPARED_SAMPLES):
        a, b = (track.read(start, start + COMPARED_SAMPLES) for track in (one, other))
        difference += _energy(a - b)
        level += (_energy(a) + _energy(b)) / 2
    return difference <= SAME_CHANNEL_DIFFERENCE**2 * level


def _energy(samples: NDArray[np.float32]) -> float:
    return float(np.dot(samples, samples))
