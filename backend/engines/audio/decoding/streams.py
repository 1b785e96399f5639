"""Which audio tracks of a container are listened to: all that hold speech of their own, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.domain.losses import Loss, LossKind
from backend.engines.audio.probe import MAX_CHANNELS
from backend.errors import InvalidAudio, UnsupportedMedia

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

MAX_TRACKS = 8
MIN_SOURCE_RATE_HZ, MAX_SOURCE_RATE_HZ = 2_000, 768_000
_NO_LANGUAGE = {None, "", "und", "mul", "mis", "zxx"}
_ASIDE = ("comment", "lyrics", "karaoke", "hearing_impaired", "visual_impaired", "clean_effects", "dependent")
"""Dispositions of tracks that say something about the main one, or repeat it for somebody."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Tracks that are listened to, the most important first, and those that are not, with the reason."""

    heard: tuple[AudioStream, ...]
    passed_over: tuple[Loss, ...]


def choose_streams(container: InputContainer, wanted: int | None = None) -> Choice:
    """Choose the tracks to listen to.

    Of tracks in several languages only those in the language of the default track are: the others are translations.

    Args:
        wanted: number of the only one to listen to, counted from 0 among the audio tracks; None: all.

    Raises:
        UnsupportedMedia: the file has no audio stream, or none that can be decoded.
        InvalidAudio: it has no audio stream of that number.
    """
    streams = container.streams.audio
    if not streams:
        raise UnsupportedMedia("The file has no audio stream. Send a recording with sound.")
    if wanted is not None:
        if wanted >= len(streams):
            raise InvalidAudio(f"There is no audio track {wanted}: the file has {len(streams)}, counted from 0.")
        streams = (streams[wanted],)
    decodable = [stream for stream in streams if find_fault(stream) is None]
    if not decodable:
        raise UnsupportedMedia(str(find_fault(streams[0])))
    faults = {stream.index: "cannot be decoded" for stream in streams if stream not in decodable}
    faults |= _left_out(decodable)
    heard = [stream for stream in decodable if stream.index not in faults]
    faults |= {stream.index: f"is one of more than {MAX_TRACKS}" for stream in heard[MAX_TRACKS:]}
    passed_over = [
        _passed_over(container, stream, faults[stream.index]) for stream in streams if stream.index in faults
    ]
    return Choice(tuple(heard[:MAX_TRACKS]), tuple(passed_over))


def find_fault(stream: AudioStream) -> str | None:
    """Why a track cannot be decoded."""
    if stream.codec_context is None:
        return "The audio codec of this file cannot be decoded. Convert it to FLAC or Opus."
    channels, rate = stream.codec_context.channels, stream.codec_context.sample_rate
    if 1 <= channels <= MAX_CHANNELS and MIN_SOURCE_RATE_HZ <= rate <= MAX_SOURCE_RATE_HZ:
        return None
    return (
        f"The file has {channels} channels at {rate} Hz; 1 to {MAX_CHANNELS} channels "
        f"and {MIN_SOURCE_RATE_HZ} to {MAX_SOURCE_RATE_HZ} Hz can be processed."
    )


def undecodable(container: InputContainer, stream: AudioStream) -> Loss:
    """The loss of a track of which nothing came out."""
    return _passed_over(container, stream, "cannot be decoded")


def _name_of(container: InputContainer, stream: AudioStream) -> str:
    """A track's number among the audio tracks, its codec and language."""
    codec = stream.codec_context.name if stream.codec_context else "unknown codec"
    language = "" if stream.language in _NO_LANGUAGE else f", {stream.language}"
    return f"{container.streams.audio.index(stream)} ({codec}{language})"


def _left_out(streams: Sequence[AudioStream]) -> dict[int, str]:
    """Tracks that are no voices of their own: index → reason."""
    main = [stream for stream in streams if not _is_aside(stream)] or list(streams)
    asides = {stream.index: "is a commentary or an aid" for stream in streams if stream not in main}
    languages = {stream.language for stream in main} - _NO_LANGUAGE
    if len(languages) < 2:
        return asides
    spoken = next((stream for stream in main if _is_default(stream)), main[0]).language
    translations = [stream for stream in main if stream.language in languages - {spoken}]
    reason = f"is in another language than the default track ({spoken})"
    return asides | {stream.index: reason for stream in translations}


def _is_default(stream: AudioStream) -> bool:
    return bool(stream.disposition & type(stream.disposition).default)


def _is_aside(stream: AudioStream) -> bool:
    kinds = type(stream.disposition)
    return any(stream.disposition & getattr(kinds, name) for name in _ASIDE)


def _passed_over(container: InputContainer, stream: AudioStream, reason: str) -> Loss:
    own_s = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
    whole_s = container.duration / 1_000_000 if container.duration and container.duration > 0 else None
    what = f"{_name_of(container, stream)} {reason} and was not listened to"
    return Loss(LossKind.TRACK, 0.0, own_s or whole_s, what=what)
