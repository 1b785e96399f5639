"""What goes into the speech pipeline and what comes out of it. Frozen; no threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from backend.domain.losses import Loss
from backend.domain.transcript import (
    Coverage,
    Diarization,
    SpeakerCount,
    SpeakerStats,
    SpeakerTurn,
    Transcript,
    Transcription,
)
from backend.domain.voices import Voice
from backend.engines.audio.probe import MediaInfo
from backend.engines.audio.samples import Audio
from backend.engines.base import TranscribeOptions

StageProgress = Callable[[str, float], None]
"""Called with a stage's name ("decode", "identify", "diarize", "transcribe", "listen", "store") and its fraction done;
from any thread."""


def ignore_progress(_stage: str, _fraction: float) -> None:
    """For callers that do not watch."""


class Channels(StrEnum):
    """What the channels of a recording mean."""

    MIX = "mix"
    SEPARATE = "separate"


@dataclass(frozen=True, slots=True)
class Recording:
    """A decoded recording: one track of all channels mixed, or one per distinct channel."""

    tracks: tuple[Audio, ...]

    @property
    def facts(self) -> RecordingFacts:
        first = self.tracks[0]
        return RecordingFacts(first.duration_s, first.info, len(self.tracks), first.losses)

    def close(self) -> None:
        for track in self.tracks:
            track.close()


@dataclass(frozen=True, slots=True)
class RecordingFacts:
    """What decoding told about a recording, without its samples."""

    duration_s: float
    media: MediaInfo
    tracks: int
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True, slots=True)
class SpeechOptions:
    """What the caller knows of a recording. `audio_stream` is the only one to listen to, counted from 0."""

    transcribe: TranscribeOptions = field(default_factory=TranscribeOptions)
    channels: Channels = Channels.MIX
    audio_stream: int | None = None
    speakers: SpeakerCount = field(default_factory=SpeakerCount)


@dataclass(frozen=True, slots=True)
class SpeechResult:
    """What the pipeline makes of a recording.

    `engines` maps a role to the engine that ran; `voices` a speaker of the transcript to an embedding, where the
    diarizer has one; `warnings` are sentences for the answer.
    """

    transcript: Transcript
    stats: dict[str, SpeakerStats]
    duration_s: float
    media: MediaInfo
    engines: dict[str, str]
    voices: Mapping[str, Voice] = field(default_factory=dict)
    losses: tuple[Loss, ...] = ()
    warnings: tuple[str, ...] = ()
    coverage: Coverage = field(default_factory=Coverage)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which model hears a recording, and in which language.

    Attributes:
        model: the model's name.
        language: None: the engine detects it, or nobody speaks.
        warnings: what the answer should say about it.
    """

    model: str
    language: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineOutput:
    """The output of the engines, before attribution; without a diarizer, `diarization` is None."""

    facts: RecordingFacts
    choice: Choice
    transcription: Transcription
    diarization: Diarization | None
    coverage: Coverage = field(default_factory=Coverage)


@dataclass(frozen=True, slots=True)
class TrackOutput:
    transcription: Transcription
    turns: tuple[SpeakerTurn, ...]
    coverage: Coverage = field(default_factory=Coverage)


@dataclass(frozen=True, slots=True)
class TracksOutput:
    """The transcription of each channel, and the speech regions in it."""

    tracks: tuple[TrackOutput, ...]
