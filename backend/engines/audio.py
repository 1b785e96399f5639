"""Any container and codec to mono 16 kHz float32, decoded once. The samples live in an unlinked temporary file.

A recording's length must not decide how much memory a server needs, so both branches of the pipeline read windows from
one spool file; the file has no name, so a killed process leaves nothing behind.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backend.errors import EmptyAudio, InvalidAudio, TooLarge, UnsupportedMedia

if TYPE_CHECKING:
    import av
    from av.container import InputContainer

SAMPLE_RATE_HZ = 16_000
MAX_CHANNELS = 8
MAX_SOURCE_RATE_HZ = 768_000

# Demuxers that hold media themselves. Playlists (ffconcat, hls, dash, sdp, image2 …) are left out on purpose: a text
# file named .wav can make them open a neighbour's file, which protocol_whitelist=file alone does not stop.
FORMATS = (
    "aac,ac3,eac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,flac,flv,gsm,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,"
    "mp3,mpc,mpc8,mpeg,mpegts,ogg,oma,rm,tak,tta,voc,w64,wav,wv"
)
STREAMED_RIFF_BYTES = 0x7FFF_0000
EXACT_DURATION = {"flac", "aiff", "w64", "mov,mp4,m4a,3gp,3g2,mj2"}
"""Demuxers whose header states the length to the sample; others estimate it or leave it out."""
OPEN_OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What the container says. `duration_s` is a claim of the header (None if it makes none), never a limit."""

    format: str
    codec: str
    sample_rate_hz: int
    channels: int
    duration_s: float | None


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
    with _open(path) as container:
        return _info(container)


def decode(path: Path, *, max_s: float, spool_dir: Path | None = None) -> Audio:
    """Decode the first audio stream of a file to mono 16 kHz float32.

    Args:
        path: a local file; the name means nothing, the bytes decide.
        max_s: stop with `TooLarge` once this many seconds were decoded; headers are not believed.
        spool_dir: where the temporary file for the samples goes; the system's place if None.

    Raises:
        EmptyAudio, UnsupportedMedia, InvalidAudio: as `probe`; also when no sample comes out.
        TooLarge: more than `max_s` seconds.
    """
    # The file outlives this function inside Audio; on any error it is closed, which also deletes it.
    file = tempfile.TemporaryFile(dir=spool_dir)  # noqa: SIM115
    try:
        with _open(path) as container:
            info = _info(container)
            n_samples, damaged = _decode_into(file, container, round(max_s * SAMPLE_RATE_HZ))
        _check_length(info, n_samples, damaged)
        return Audio(file, n_samples, info, damaged)
    except BaseException:
        file.close()
        raise


def _open(path: Path) -> InputContainer:
    import av

    if path.stat().st_size == 0:
        raise EmptyAudio("The file is empty (0 bytes). Send a recording.")
    _check_riff_size(path)
    try:
        return av.open(str(path), options=OPEN_OPTIONS, metadata_errors="replace")
    except (av.error.FFmpegError, UnicodeError) as error:
        raise UnsupportedMedia(
            f"This is not an audio or video file that can be read ({_reason(error)}). "
            "Send wav, mp3, m4a, mp4, mkv, webm, ogg, opus, flac, amr, wma or another common format."
        ) from error


def _check_riff_size(path: Path) -> None:
    """Refuse a WAV file that ends before its header says; the demuxer would silently take what is there.

    Programs that stream cannot know the size and write 0 or a value near the maximum: those are read to their end.

    Raises:
        InvalidAudio
    """
    with path.open("rb") as file:
        head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return
    promised, there = int.from_bytes(head[4:8], "little") + 8, path.stat().st_size
    if there < promised < STREAMED_RIFF_BYTES and promised - there > 4096:
        raise InvalidAudio(
            f"The file is truncated: its header promises {promised} bytes, but only {there} are there. "
            "Send the whole file, or export what is left as a file of its own."
        )


def _info(container: InputContainer) -> MediaInfo:
    if not container.streams.audio:
        raise UnsupportedMedia("The file has no audio stream. Send a recording with sound.")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise UnsupportedMedia("The audio codec of this file cannot be decoded. Convert it to FLAC or Opus.")
    channels, rate = stream.codec_context.channels, stream.codec_context.sample_rate
    if channels > MAX_CHANNELS or rate > MAX_SOURCE_RATE_HZ:
        raise UnsupportedMedia(
            f"The file has {channels} channels at {rate} Hz; at most {MAX_CHANNELS} channels "
            f"and {MAX_SOURCE_RATE_HZ} Hz can be processed."
        )
    return MediaInfo(container.format.name, stream.codec_context.name, rate, channels, _claimed_s(container))


def _claimed_s(container: InputContainer) -> float | None:
    """The audio stream's own length if the header has it; the container's may be that of a longer video."""
    stream = container.streams.audio[0]
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration and container.duration > 0 else None


def _decode_into(file: IO[bytes], container: InputContainer, max_samples: int) -> tuple[int, int]:
    """Write the stream's samples to `file`.

    Damaged packets are skipped, as players do.

    Returns:
        Samples written, damaged packets.
    """
    import av

    stream = container.streams.audio[0]
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
    n_samples = damaged = 0
    for packet in _packets(container):
        try:
            frames = stream.codec_context.decode(packet) if packet else []
        except (av.error.FFmpegError, ValueError):
            damaged += 1
            continue
        damaged += packet is None
        for frame in frames:
            n_samples += _write(file, resampler.resample(frame))
        if n_samples > max_samples:
            raise TooLarge(
                f"The recording is longer than {max_samples / SAMPLE_RATE_HZ:.0f} s of decoded audio. "
                "Split it, or raise MAX_AUDIO_SECONDS."
            )
    n_samples += _write(file, resampler.resample(None)) if n_samples else 0
    file.flush()
    return n_samples, damaged


def _packets(container: InputContainer) -> Iterator[av.Packet[av.AudioStream] | None]:
    """The first audio stream's packets; None where the container itself breaks off."""
    import av

    try:
        yield from container.demux(container.streams.audio[0])
    except av.error.FFmpegError:
        yield None


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


def _write(file: IO[bytes], frames: list[av.AudioFrame]) -> int:
    """Append resampled frames; NaN, infinity and overshoot (float sources) become finite samples in [-1, 1]."""
    written = 0
    for frame in frames:
        samples = np.nan_to_num(frame.to_ndarray().reshape(-1), nan=0.0, posinf=1.0, neginf=-1.0)
        np.clip(samples, -1.0, 1.0, out=samples)
        file.write(samples.astype(np.float32, copy=False).tobytes())
        written += len(samples)
    return written


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
