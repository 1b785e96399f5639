"""The two things Aperta asks of a speech engine. Engines are synchronous; services own the threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from backend.domain.transcript import Diarization, SpeakerCount, Transcription
from backend.engines.audio.samples import Audio
from backend.engines.progress import Progress as Progress


@dataclass(frozen=True, slots=True)
class TranscribeOptions:
    """What the caller knows about the words: an ISO 639-1 language, a free prompt, rare words."""

    language: str | None = None
    prompt: str | None = None
    hotwords: str | None = None


class Transcriber(Protocol):
    """Audio to text.

    An engine that cuts the recording by who speaks sets `needs_turns`; it is then given the diarization. Words with
    times are attributed by them; an engine that has none labels its segments with a speaker.
    """

    @property
    def name(self) -> str: ...

    @property
    def needs_turns(self) -> bool: ...

    def check(self, options: TranscribeOptions) -> None:
        """Refuse what the engine cannot do, before any work is done.

        Raises:
            InvalidInput: a language that the engine does not know.
        """

    def transcribe(
        self, audio: Audio, options: TranscribeOptions, diarization: Diarization | None, progress: Progress
    ) -> Transcription: ...


class Diarizer(Protocol):
    """Audio to speaker turns. Speaker labels are arbitrary but consistent within one recording."""

    @property
    def name(self) -> str: ...

    def diarize(self, audio: Audio, speakers: SpeakerCount, progress: Progress) -> Diarization: ...
