"""Engines with scripted answers, for tests and for measuring everything around the models."""

from __future__ import annotations

from collections.abc import Sequence

from backend.domain.transcript import Diarization, Segment, SpeakerCount, Transcription
from backend.engines.audio.samples import Audio
from backend.engines.base import Progress, TranscribeOptions


class ScriptedTranscriber:
    """Returns a given transcription, or raises a given error."""

    needs_turns = False
    may_invent = False

    def __init__(self, transcription: Transcription | Exception, name: str = "scripted") -> None:
        self._transcription = transcription
        self.name = name
        self.options: list[TranscribeOptions] = []

    def check(self, options: TranscribeOptions) -> None:
        """Knows every language."""

    def transcribe(
        self,
        audio: Audio,  # noqa: ARG002 - the protocol's signature
        options: TranscribeOptions,
        diarization: Diarization | None,  # noqa: ARG002
        progress: Progress,
    ) -> Transcription:
        self.options.append(options)
        if isinstance(self._transcription, Exception):
            raise self._transcription
        progress(1.0)
        return self._transcription

    def transcribe_spans(
        self,
        audio: Audio,  # noqa: ARG002
        spans: Sequence[tuple[float, float]],
        options: TranscribeOptions,  # noqa: ARG002
        progress: Progress,
    ) -> list[tuple[Segment, ...]]:
        """Hears nothing more than was scripted."""
        progress(1.0)
        return [()] * len(spans)


class ScriptedDiarizer:
    """Returns a given diarization, or raises a given error."""

    def __init__(self, diarization: Diarization | Exception, name: str = "scripted") -> None:
        self._diarization = diarization
        self.name = name
        self.speakers: list[SpeakerCount] = []

    def diarize(self, audio: Audio, speakers: SpeakerCount, progress: Progress) -> Diarization:  # noqa: ARG002
        self.speakers.append(speakers)
        if isinstance(self._diarization, Exception):
            raise self._diarization
        progress(1.0)
        return self._diarization
