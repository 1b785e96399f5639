"""The program that reads recordings: `python -m backend.engines.audio.decoder ORDER`, one short-lived process for each.

ORDER is JSON, as `process.run_decoder` writes it: `path`, the recording (none: only report how firmly this process is
confined); `files`, the numbers of inherited open files for samples (none: only probe; one: channels mixed; more: a file
for each channel); and what limits it. On stdout come lines of JSON: `{"progress": 0.5}`, and at the end
`{"result": …}` or `{"error": class, "detail": sentence}`. No numpy here: it would double the time to start.
"""

from __future__ import annotations

import errno
import importlib
import json
import math
import os
import pkgutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av

from backend.engines.audio.confinement import Confinement, Limits, confine
from backend.engines.audio.containers import describe, open_container
from backend.engines.audio.memory import MAX_DECODER_BYTES, MIB
from backend.engines.audio.probe import MAX_CHANNELS, MediaInfo
from backend.engines.audio.process import too_slow
from backend.engines.audio.recording import OpenRecording
from backend.engines.audio.tracks import BYTES_OF, Tracks, too_many_bytes
from backend.engines.progress import TICK_S
from backend.errors import AppError, EmptyAudio, InvalidAudio, StorageFull, TooLarge

SAMPLE_RATE_HZ = 16_000
PROBED_PACKETS = 200
MIN_FILE_BYTES = MIB
"""What may be written to a file even when there are no samples: the account of a mistake."""
EXACT_IN_16_BITS = {"u8", "u8p", "s16", "s16p"}
DAMAGED = "The audio stream is damaged: not one packet can be decoded. Export the recording again."
EMPTY = (
    "The recording holds no audio samples: it is empty or was cut off before the first sound. "
    "Check the file in a player and send it again."
)


def main(order: dict[str, Any]) -> dict[str, object]:
    """Carry out an order; see the module. Imports first, then open files, then the lock, then the recording's bytes.

    Raises:
        EmptyAudio, InvalidAudio, UnsupportedMedia, TooLarge, StorageFull, EngineUnavailable
    """
    _import_all_of_av()
    with ExitStack() as opened:
        path = order["path"]
        recording = opened.enter_context(closing(OpenRecording(Path(path)))) if path is not None else None
        files = [opened.enter_context(os.fdopen(number, "wb")) for number in order["files"]]
        measures = confine(_limits(order), Confinement(order.get("confinement", Confinement.AUTO)))
        if recording is None:
            return {"measures": asdict(measures)}
        with open_container(recording) as container:
            info = describe(container)
            if not files:
                _check_beginning(container)
                return {"info": asdict(info)}
            files = files[: 1 if len(files) == 1 else info.channels]
            tracks = Tracks(
                files,
                _sample_format(container, are_mixed=len(files) == 1),
                max_bytes=order["max_decoded_bytes"],
                disk_reserve_bytes=order["disk_reserve_bytes"],
            )
            return {"info": asdict(info), **_decode(tracks, container, info, order)}


def _decode(
    tracks: Tracks, container: av.container.InputContainer, info: MediaInfo, order: dict[str, Any]
) -> dict[str, object]:
    tracks.check_expected(min(round((info.stated_duration_s or 0.0) * SAMPLE_RATE_HZ), order["max_samples"]))
    watch = _Watch(info, order["max_samples"], order["max_cpu_s"])
    n_samples, damaged = _decode_into(tracks, container, watch)
    if n_samples == 0:
        raise InvalidAudio(DAMAGED) if damaged else EmptyAudio(EMPTY)
    return {
        "tracks": tracks.count,
        "sample_format": tracks.sample_format,
        "n_samples": n_samples,
        "damaged_packets": damaged,
    }


def _limits(order: dict[str, Any]) -> Limits:
    """For a decoding the limit on computing is only met where one call into FFmpeg never returns; else `_Watch` says it
    better. What this program has computed so far, while it started, is its own."""
    slack_s = 2.0 if order["files"] else time.process_time()
    longest_bytes = order.get("max_samples", 0) * max(BYTES_OF.values())
    return Limits(
        max_cpu_s=math.ceil(order["max_cpu_s"] + slack_s),
        max_memory_bytes=order.get("max_memory_bytes", MAX_DECODER_BYTES),
        max_file_bytes=min(longest_bytes, order.get("max_decoded_bytes", 0)) + MIN_FILE_BYTES,
    )


def _import_all_of_av() -> None:
    """PyAV would import its modules when it needs them, which the lock forbids."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith(("__main__", ".datasets")):
            importlib.import_module(module.name)


def _sample_format(container: av.container.InputContainer, *, are_mixed: bool) -> str:
    """16 bits where nothing is lost by them, which halves the space; else float."""
    context = container.streams.audio[0].codec_context
    is_kept = context.sample_rate == SAMPLE_RATE_HZ and (context.channels == 1 or not are_mixed)
    is_exact = context.format is not None and context.format.name in EXACT_IN_16_BITS
    return "s16" if is_kept and is_exact else "flt"


class _Watch:
    """Stops a decoding that takes too long, and tells how far it is."""

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
        # Said even where it means nothing: once the reader is gone, writing fails, and this process ends.
        _say({"progress": min(0.99, n_samples / self._claimed_samples) if self._claimed_samples > 0 else 0.0})


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


def _decode_into(tracks: Tracks, container: av.container.InputContainer, watch: _Watch) -> tuple[int, int]:
    """Write the stream's samples, mixed into one track or each channel to its own.

    Damaged packets are skipped, as players do.

    Returns:
        Samples per track, damaged packets.
    """
    context = container.streams.audio[0].codec_context
    resampler = _Resampler(tracks.sample_format, mixed=tracks.are_mixed)
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
        n_samples += tracks.write(resampled)
    try:
        n_samples += tracks.write(resampler.rest())
    except (av.error.FFmpegError, ValueError):
        damaged += 1
    watch.check(n_samples)
    return n_samples, damaged


class _Resampler:
    """To 16 kHz, packed; starts anew where the stream changes its rate or layout in the middle.

    Packed, because PyAV reads past the end of a planar frame's list of eight channels.
    """

    def __init__(self, sample_format: str, *, mixed: bool) -> None:
        self._format = sample_format
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
            self._shape, self._inner = shape, av.AudioResampler(format=self._format, layout=layout, rate=SAMPLE_RATE_HZ)
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


def _reraise_out_of_memory(error: Exception) -> None:
    if isinstance(error, MemoryError):
        raise error


def _say(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _run() -> None:
    order = json.loads(sys.argv[1])
    try:
        _say({"result": main(order)})
    except AppError as error:
        _say({"error": type(error).__name__, "detail": str(error)})
    except MemoryError:
        most_mb = order.get("max_memory_bytes", MAX_DECODER_BYTES) // MIB
        detail = f"The recording cannot be read: it asks for more than {most_mb} MB of memory."
        _say({"error": InvalidAudio.__name__, "detail": f"{detail} Export it again, or convert it to FLAC."})
    except OSError as error:
        if (refusal := _find_refusal(error, order)) is None:
            raise
        _say({"error": type(refusal).__name__, "detail": str(refusal)})


def _find_refusal(error: OSError, order: dict[str, Any]) -> AppError | None:
    """What it means for the recording that a file of samples could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("No space left for the decoded samples. Free space or move UPLOAD_DIR.")
    return too_many_bytes(order["max_decoded_bytes"]) if error.errno == errno.EFBIG else None


if __name__ == "__main__":
    _run()
