"""What was said, by whom and when: the values every layer passes around. No I/O, no engine types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Word:
    """One word; `start_s`/`end_s` are None where the engine could not place it (digits, symbols)."""

    text: str
    start_s: float | None = None
    end_s: float | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class SpeakerTurn:
    """One speaker talking without a longer pause, in seconds from the start of the recording."""

    start_s: float
    end_s: float
    speaker: str

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class Diarization:
    """Who spoke when.

    `turns` may overlap (people do); `exclusive` has at most one speaker at a time and serves attribution.
    Both are sorted by start. `voices` maps a speaker to an L2-normalised embedding of how they sound, from engines that
    have one.
    """

    turns: tuple[SpeakerTurn, ...] = ()
    exclusive: tuple[SpeakerTurn, ...] = ()
    voices: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SpeakerCount:
    """What the caller knows about the number of speakers; None is "unknown"."""

    exact: int | None = None
    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text; `speaker` is None until attribution, `words` is empty where the engine gives none."""

    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...] = ()
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Transcription:
    """What an engine heard. `language` is an ISO 639-1 code, None if nothing was heard."""

    segments: tuple[Segment, ...] = ()
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of what was said has words: seconds of speech, seconds of it without words, and where those are."""

    speech_s: float = 0.0
    without_words_s: float = 0.0
    without_words: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class SpeakerStats:
    speaking_time_s: float
    share: float
    word_count: int
    segment_count: int


class SpeakerRecord(Protocol):
    """What rows and manifests keep of a speaker."""

    @property
    def label(self) -> str: ...

    @property
    def display_name(self) -> str | None: ...

    @property
    def speaking_time_s(self) -> float: ...

    @property
    def share(self) -> float: ...

    @property
    def word_count(self) -> int: ...

    @property
    def segment_count(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSpeaker(SpeakerStats):
    """A speaker of a transcript: the numbered label, the name of the person if the voice is known, and the figures."""

    label: str
    display_name: str | None = None

    @classmethod
    def copied(cls, record: SpeakerRecord) -> NamedSpeaker:
        """The speaker that a record describes."""
        return cls(**{item.name: getattr(record, item.name) for item in fields(cls)})

    @property
    def name(self) -> str:
        """What a transcript shows."""
        return self.display_name or self.label


@dataclass(frozen=True, slots=True)
class Transcript:
    """The product: attributed segments in time order. Every segment has a speaker."""

    segments: tuple[Segment, ...] = ()
    language: str | None = None

    @property
    def speakers(self) -> tuple[str, ...]:
        """Labels in order of first appearance."""
        return tuple(dict.fromkeys(s.speaker for s in self.segments if s.speaker is not None))
