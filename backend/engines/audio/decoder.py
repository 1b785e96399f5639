"""The program that reads recordings: `python -m backend.engines.decoder ORDER`, one short-lived process for each.

ORDER is JSON: `path`; `files`, the numbers of inherited open files for samples (none: only probe; one: channels mixed;
more: a file for each channel); `max_samples` and `max_cpu_s`. On stdout come lines of JSON: `{"progress": 0.5}`, and at
the end `{"result": …}` or `{"error": class, "detail": sentence}`. No numpy here: it would double the time to start.
"""

from __future__ import annotations

import errno
import importlib
import json
import math
import os
import pkgutil
import resource
import sys
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import av

from backend.engines.audio.containers import describe, open_container
from backend.engines.audio.probe import MAX_CHANNELS, MediaInfo
from backend.engines.audio.process import too_slow
from backend.engines.progress import TICK_S
from backend.errors import AppError, EmptyAudio, InvalidAudio, StorageFull, TooLarge

SAMPLE_RATE_HZ = 16_000
MEMORY_BYTES = 1024**3
"""Address space of this process. A 12-hour film needs 300 MB; what needs more is a bomb."""
PROBED_PACKETS = 200
DAMAGED = "The audio stream is damaged: not one packet can be decoded. Export the recording again."
EMPTY = (
    "The recording holds no audio samples: it is empty or was cut off before the first sound. "
    "Check the file in a player and send it again."
)


def main(order: dict[str, Any]) -> dict[str, object]:
    """Carry out an order; see the module.

    Raises:
        EmptyAudio, InvalidAudio, UnsupportedMedia, TooLarge, StorageFull
    """
    _limit_resources(order["max_cpu_s"])
    with open_container(Path(order["path"])) as container:
        info = describe(container)
        if not order["files"]:
            _check_beginning(container)
            return {"info": asdict(info)}
        with ExitStack() as opened:
            n_tracks = 1 if len(order["files"]) == 1 else info.channels
            tracks = [opened.enter_context(os.fdopen(number, "wb")) for number in order["files"][:n_tracks]]
            watch = _Watch(info, order["max_samples"], order["max_cpu_s"])
            n_samples, damaged = _decode_into(tracks, container, watch)
    if n_samples == 0:
        raise InvalidAudio(DAMAGED) if damaged else EmptyAudio(EMPTY)
    return {"info": asdict(info), "tracks": n_tracks, "n_samples": n_samples, "damaged_packets": damaged}


class _Watch:
    """Stops what goes on for too long, and tells how far it is."""

    def __init__(self, info: MediaInfo, max_samples: int, max_cpu_s: float) -> None:
        self._claimed_samples = (info.duration_s or 0.0) * SAMPLE_RATE_HZ
        self._max_samples = max_samples
        self._max_cpu_s = max_cpu_s
        self._told_at = 0.0

    def check(self, n_samples: int) -> None:
        """Raises TooLarge. The header's length is good for a progress bar and for nothing else."""
        if n_samples > self._max_samples:
            raise TooLarge(
                f"The recording is longer than {self._max_samples / SAMPLE_RATE_HZ:.0f} s of decoded audio. "
                "Split it, or raise MAX_AUDIO_SECONDS."
            )
        now = time.monotonic()
        if now - self._told_at < TICK_S / 2:
            return
        self._told_at = now
        if time.process_time() > self._max_cpu_s:
            raise too_slow(self._max_cpu_s)
        # Said even where it means nothing: if nobody reads it any more, writing fails, and this process ends.
        _say({"progress": min(0.99, n_samples / self._claimed_samples) if self._claimed_samples > 0 else 0.0})


def _limit_resources(max_cpu_s: float) -> None:
    """Memory, computing, no core file; and one file open at a time, so that what a container names stays shut.

    The limit on computing is only met where one call into FFmpeg never returns; else `_Watch` says it better.
    """
    for module in pkgutil.walk_packages(av.__path__, "av."):  # PyAV would import them when it needs them: too late
        if not module.name.endswith(("__main__", ".datasets")):
            importlib.import_module(module.name)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    seconds = math.ceil(max_cpu_s) + 2
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, free + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _check_beginning(container: av.container.InputContainer) -> None:
    """Raises EmptyAudio if there is no packet of sound at all, InvalidAudio if none of them can be decoded."""
    context, tried = container.streams.audio[0].codec_context, 0
    for packet in _packets(container):
        if tried >= PROBED_PACKETS:
            return  # a bad beginning; the rest may be good
        try:
            if packet and context.decode(packet):
                return
        except (av.error.FFmpegError, ValueError) as error:
            _reraise_out_of_memory(error)
        tried += packet is None or packet.size > 0
    if tried:
        raise InvalidAudio(DAMAGED)
    raise EmptyAudio(EMPTY)


def _decode_into(tracks: Sequence[IO[bytes]], container: av.container.InputContainer, watch: _Watch) -> tuple[int, int]:
    """Write the stream's samples, mixed into one track or each channel to its own.

    Damaged packets are skipped, as players do.

    Returns:
        Samples per track, damaged packets.
    """
    context = container.streams.audio[0].codec_context
    resampler = _Resampler(mixed=len(tracks) == 1)
    n_samples = damaged = 0
    for packet in _packets(container):
        watch.check(n_samples)
        try:
            frames = context.decode(packet) if packet else []
            resampled = [piece for frame in frames for piece in resampler.resample(frame)]
        except (av.error.FFmpegError, ValueError) as error:
            _reraise_out_of_memory(error)
            damaged += 1
            continue
        damaged += packet is None
        n_samples += _write(tracks, resampled)
    try:
        n_samples += _write(tracks, resampler.rest())
    except (av.error.FFmpegError, ValueError):
        damaged += 1
    watch.check(n_samples)
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


def _packets(container: av.container.InputContainer) -> Iterator[av.Packet[av.AudioStream] | None]:
    """The first audio stream's packets; None where the container itself breaks off."""
    try:
        yield from container.demux(container.streams.audio[0])
    except av.error.FFmpegError as error:
        _reraise_out_of_memory(error)
        yield None


def _write(tracks: Sequence[IO[bytes]], frames: list[av.AudioFrame]) -> int:
    """Append resampled frames; a stream that loses a channel on the way leaves silence on that track."""
    written = 0
    for frame in frames:
        channels = frame.layout.nb_channels
        packed = memoryview(frame.planes[0])[: frame.samples * channels * 4]
        if len(tracks) == 1:
            tracks[0].write(packed)
        else:
            samples = array("f", packed.tobytes())
            for number, track in enumerate(tracks):
                track.write(samples[number::channels] if number < channels else bytes(frame.samples * 4))
        written += frame.samples
    return written


def _reraise_out_of_memory(error: Exception) -> None:
    if isinstance(error, MemoryError):
        raise error


def _say(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _run() -> None:
    try:
        _say({"result": main(json.loads(sys.argv[1]))})
    except AppError as error:
        _say({"error": type(error).__name__, "detail": str(error)})
    except MemoryError:
        detail = f"The recording cannot be read: it asks for more than {MEMORY_BYTES // 1024**2} MB of memory."
        _say({"error": InvalidAudio.__name__, "detail": f"{detail} Export it again, or convert it to FLAC."})
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        detail = "No space left for the decoded samples. Free space or move UPLOAD_DIR."
        _say({"error": StorageFull.__name__, "detail": detail})


if __name__ == "__main__":
    _run()
