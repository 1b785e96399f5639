"""Opening files that clients sent: which containers are allowed, and what they say of themselves.

Runs inside the decoder's own process, because FFmpeg's parsers are C and believe much of what they read.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from backend.engines.audio.decoding.links import unreadable
from backend.engines.audio.decoding.recording import RecordingPart
from backend.engines.audio.decoding.signatures import HEAD_BYTES, allowed_demuxers
from backend.engines.audio.probe import MediaInfo

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

READ_BYTES = 65_536


def open_container(part: RecordingPart) -> InputContainer:
    """Open a part of a file as media; only containers that hold media themselves.

    Its first bytes decide which demuxers may open it; there is no protocol by which it could name another file, and no
    decoder but those of sound is ever opened.

    Raises:
        UnsupportedMedia: it is not what it begins like.
    """
    import av

    demuxers = allowed_demuxers(part.peek(HEAD_BYTES))
    if demuxers is None:
        raise unreadable("it does not begin like any of them")
    options = {"format_whitelist": demuxers, "protocol_whitelist": "none", "codec_whitelist": _sound_decoders()}
    try:
        return av.open(part, "r", options=options, metadata_errors="replace", buffer_size=READ_BYTES)
    except MemoryError:
        raise
    except (av.error.FFmpegError, UnicodeError) as error:
        raise unreadable(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error


def describe(container: InputContainer, stream: AudioStream) -> MediaInfo:
    """What the container says of an audio stream that can be decoded."""
    context = stream.codec_context
    return MediaInfo(
        container.format.name, context.name, context.sample_rate, context.channels, _claimed_s(container, stream)
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


def _claimed_s(container: InputContainer, stream: AudioStream) -> float | None:
    """The audio stream's own length if the header has it; the container's may be that of a longer video."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration and container.duration > 0 else None
