"""Opening files that clients sent: which containers are allowed, and what they say of themselves.

Runs inside the decoder's own process (decoder.py), because FFmpeg's parsers are C and believe much of what they read.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from backend.engines.audio.probe import MAX_CHANNELS, MediaInfo
from backend.engines.audio.recording import OpenRecording
from backend.engines.audio.signatures import HEAD_BYTES, allowed_demuxers
from backend.errors import EmptyAudio, InvalidAudio, UnsupportedMedia

if TYPE_CHECKING:
    from av.container import InputContainer


MIN_SOURCE_RATE_HZ, MAX_SOURCE_RATE_HZ = 2_000, 768_000
STREAMED_RIFF_BYTES = 0x7FFF_0000
READ_BYTES = 65_536


def open_container(recording: OpenRecording) -> InputContainer:
    """Open a file as media; only containers that hold media themselves.

    Its first bytes decide which demuxers may open it; there is no protocol by which it could name another file, and no
    decoder but those of sound is ever opened.

    Raises:
        EmptyAudio, InvalidAudio, UnsupportedMedia
    """
    import av

    demuxers = _allowed_demuxers(recording)
    options = {"format_whitelist": demuxers, "protocol_whitelist": "none", "codec_whitelist": _sound_decoders()}
    try:
        return av.open(recording, "r", options=options, metadata_errors="replace", buffer_size=READ_BYTES)
    except MemoryError:
        raise
    except (av.error.FFmpegError, UnicodeError) as error:
        raise _unreadable(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error


def describe(container: InputContainer) -> MediaInfo:
    """What the container says of its first audio stream.

    Raises:
        UnsupportedMedia: the file has no audio stream, or one that cannot be decoded.
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


def _allowed_demuxers(recording: OpenRecording) -> str:
    head = recording.peek(HEAD_BYTES)
    if not head:
        raise EmptyAudio("The file is empty (0 bytes). Send a recording.")
    demuxers = allowed_demuxers(head)
    if demuxers is None:
        raise _unreadable("it does not begin like any of them")
    if head[:4] == b"RIFF" and demuxers == "wav":
        _check_riff_size(int.from_bytes(head[4:8], "little") + 8, recording.size_bytes)
    return demuxers


def _unreadable(reason: str) -> UnsupportedMedia:
    return UnsupportedMedia(
        f"This is not an audio or video file that can be read ({reason}). "
        "Send wav, mp3, m4a, mp4, mkv, webm, ogg, opus, flac, amr, wma or another common format."
    )


def _check_riff_size(promised: int, there: int) -> None:
    """Refuse a WAV file that ends before its header says; the demuxer would silently take the rest.

    Programs that stream cannot know the size and write 0 or a value near the maximum: those are read to their end.

    Raises:
        InvalidAudio
    """
    if there < promised < STREAMED_RIFF_BYTES and promised - there > 4096:
        raise InvalidAudio(
            f"The file is truncated: its header promises {promised} bytes, but only {there} are there. "
            "Send the whole file, or export what is left as a file of its own."
        )


@cache
def _sound_decoders() -> str:
    """The names of all decoders of sound. Pictures are never decoded, not even to guess a stream's parameters."""
    import av

    return ",".join(sorted(name for name in av.codecs_available if _decodes_sound(name)))


def _decodes_sound(name: str) -> bool:
    import av

    try:
        return av.Codec(name, "r").type == "audio"
    except av.codec.codec.UnknownCodecError:  # it can only be encoded
        return False


def _claimed_s(container: InputContainer) -> float | None:
    """The audio stream's own length if the header has it; the container's may be that of a longer video."""
    stream = container.streams.audio[0]
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration and container.duration > 0 else None
