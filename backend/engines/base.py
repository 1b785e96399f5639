"""The two things Aperta asks of a speech engine. Engines are synchronous; services own the threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from backend.domain.transcript import Diarization, Segment, SpeakerCount, Transcription
from backend.engines.audio.samples import Audio
from backend.engines.progress import Progress as Progress


@dataclass(frozen=True, slots=True)
class TranscribeOptions:
    """What the caller knows about the words: an ISO 639-1 language, a free prompt, rare words; and which model is to
    hear them, by its name or `auto`."""

    language: str | None = None
    prompt: str | None = None
    hotwords: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class LanguageGuess:
    """An ISO 639-1 code, its probability as the mean over the places, and the seconds of speech that were heard."""

    language: str
    probability: float
    speech_s: float


class Transcriber(Protocol):
    """Audio to text.

    An engine that cuts the recording by who speaks sets `needs_turns`; it is then given the diarization. Words with
    times are attributed by them; an engine that has none labels its segments with a speaker.
    """

    @property
    def name(self) -> str: ...

    @property
    def needs_turns(self) -> bool: ...

    @property
    def may_invent(self) -> bool:
        """Whether it may write text where nobody speaks, as models do that learned from subtitles."""

    def check(self, options: TranscribeOptions) -> None:
        """Refuse what the engine cannot do, before any work is done.

        Raises:
            InvalidInput: a language that the engine does not know.
        """

    def transcribe(
        self, audio: Audio, options: TranscribeOptions, diarization: Diarization | None, progress: Progress
    ) -> Transcription: ...

    def transcribe_spans(
        self, audio: Audio, spans: Sequence[tuple[float, float]], options: TranscribeOptions, progress: Progress
    ) -> list[tuple[Segment, ...]]:
        """What is said in stretches of a recording, each heard by itself and whole; to hear again what was left out.

        Args:
            spans: start and end in seconds, each at most 30 s long.
            options: with the language of the recording, if that is known.

        Returns:
            The segments of each span, without speakers; empty where the engine hears no words.
        """


class Identifier(Protocol):
    """A transcriber that also tells which language is spoken."""

    def identify(self, tracks: Sequence[Audio], progress: Progress) -> LanguageGuess | None:
        """The language of a recording, which may have several channels; None if nobody speaks in it."""
        ...


class Diarizer(Protocol):
    """Audio to speaker turns. Speaker labels are arbitrary but consistent within one recording."""

    @property
    def name(self) -> str: ...

    def diarize(self, audio: Audio, speakers: SpeakerCount, progress: Progress) -> Diarization: ...
