"""Opening files that somebody sent: which containers are allowed, and what they say of themselves. Decodes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import EmptyAudio, InvalidAudio, UnsupportedMedia

if TYPE_CHECKING:
    from av.container import InputContainer

MAX_CHANNELS = 8
MIN_SOURCE_RATE_HZ, MAX_SOURCE_RATE_HZ = 2_000, 768_000

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


def open_media(path: Path) -> InputContainer:
    """Open a file as media, whatever its name says; only containers that hold media themselves.

    Raises:
        EmptyAudio, InvalidAudio, UnsupportedMedia
    """
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


def describe(container: InputContainer) -> MediaInfo:
    """What the container says of its first audio stream.

    Raises:
        UnsupportedMedia: there is none, or it cannot be decoded.
    """
    if not container.streams.audio:
        raise UnsupportedMedia("The file has no audio stream. Send a recording with sound.")
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise UnsupportedMedia("The audio codec of this file cannot be decoded. Convert it to FLAC or Opus.")
    channels, rate = stream.codec_context.channels, stream.codec_context.sample_rate
    if not 1 <= channels <= MAX_CHANNELS or not MIN_SOURCE_RATE_HZ <= rate <= MAX_SOURCE_RATE_HZ:
        raise UnsupportedMedia(
            f"The file has {channels} channels at {rate} Hz; 1 to {MAX_CHANNELS} channels "
            f"and {MIN_SOURCE_RATE_HZ} to {MAX_SOURCE_RATE_HZ} Hz can be processed."
        )
    return MediaInfo(container.format.name, stream.codec_context.name, rate, channels, _claimed_s(container))


def _claimed_s(container: InputContainer) -> float | None:
    """The audio stream's own length if the header has it; the container's may be that of a longer video."""
    stream = container.streams.audio[0]
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration and container.duration > 0 else None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
