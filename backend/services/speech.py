"""The speech pipeline: decode → transcribe ∥ diarize → attribute. Owns the threads; knows no storage and no rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from backend.domain.speakers import attribute, speaker_stats
from backend.domain.transcript import Diarization, SpeakerCount, SpeakerStats, SpeakerTurn, Transcript, Transcription
from backend.domain.voices import Voice
from backend.engines.audio import Audio, decode, decode_channels
from backend.engines.base import Diarizer, TranscribeOptions, Transcriber
from backend.engines.lazy import Lazy
from backend.engines.media import MediaInfo
from backend.engines.vad import speech_regions
from backend.services.concurrency import all_of

StageProgress = Callable[[str, float], None]
"""Called with a stage's name ("decode", "diarize", "transcribe", "store") and its fraction done; from any thread."""

ATTRIBUTION = (
    "Speaker diarization: pyannote community-1 by pyannote, CC BY 4.0",
    "Built-in English transcription: Moonshine tiny-en by Useful Sensors, MIT",
    "Whisper models by OpenAI, MIT, where configured",
)


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
    def damaged_packets(self) -> int:
        return self.tracks[0].damaged_packets

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *exc: object) -> None:
        for track in self.tracks:
            track.close()


@dataclass(slots=True)
class Timings:
    """Wall-clock seconds per stage; stages that run side by side overlap."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - began, 3)


def _name(engine: Lazy[Transcriber] | Lazy[Diarizer]) -> str:
    """What the loaded engine calls itself (with device and precision), else what it was announced as."""
    return engine.get().name if engine.loaded else engine.name


@dataclass(frozen=True, slots=True)
class SpeechResult:
    """What the pipeline makes of a recording.

    `engines` maps a role to the engine that ran; `voices` a speaker of the transcript to an embedding, where the
    diarizer has one.
    """

    transcript: Transcript
    stats: dict[str, SpeakerStats]
    duration_s: float
    media: MediaInfo
    engines: dict[str, str]
    voices: Mapping[str, Voice] = field(default_factory=dict)


class SpeechPipeline:
    """One transcriber and one diarizer (or none), loaded on first use.

    Args:
        transcriber: the engine that hears words.
        diarizer: the engine that tells voices apart; None: everything is one speaker's.
        max_audio_s: longest recording in decoded seconds.
        spool_dir: where decoded samples are kept while a recording is processed.
    """

    def __init__(
        self,
        transcriber: Lazy[Transcriber],
        diarizer: Lazy[Diarizer] | None,
        *,
        max_audio_s: float,
        spool_dir: Path | None = None,
    ) -> None:
        self._transcriber = transcriber
        self._diarizer = diarizer
        self._max_audio_s = max_audio_s
        self._spool_dir = spool_dir
        # Inference has threads of its own: a long recording must not starve the 40 threads that serve files.
        # One recording at a time per engine: the engines themselves use all cores.
        self._asr_limiter = anyio.CapacityLimiter(1)
        self._diarization_limiter = anyio.CapacityLimiter(1)
        self._load_limiter = anyio.CapacityLimiter(4)
        self._decode_limiter = anyio.CapacityLimiter(2)

    @property
    def engines(self) -> dict[str, str]:
        """Role → engine name, loaded or not."""
        return {
            "transcription": _name(self._transcriber),
            "diarization": _name(self._diarizer) if self._diarizer else "none",
        }

    @property
    def ready(self) -> bool:
        """Whether every model is in memory."""
        return self._transcriber.loaded and (self._diarizer is None or self._diarizer.loaded)

    async def warm(self) -> None:
        """Load every model now.

        Raises:
            EngineUnavailable: a model is missing or damaged.
        """
        await anyio.to_thread.run_sync(self._transcriber.get, limiter=self._asr_limiter)
        if self._diarizer:
            await anyio.to_thread.run_sync(self._diarizer.get, limiter=self._diarization_limiter)

    async def check(self, options: TranscribeOptions) -> None:
        """Refuse options that the engine cannot meet. Raises InvalidInput."""
        transcriber = await anyio.to_thread.run_sync(self._transcriber.get, limiter=self._load_limiter)
        transcriber.check(options)

    async def decode(self, path: Path, channels: Channels = Channels.MIX) -> Recording:
        """The recording as samples; the caller closes it. Raises as `backend.engines.audio.decode`."""

        def run() -> Recording:
            if channels == Channels.SEPARATE:
                return Recording(decode_channels(path, max_s=self._max_audio_s, spool_dir=self._spool_dir))
            return Recording((decode(path, max_s=self._max_audio_s, spool_dir=self._spool_dir),))

        return await anyio.to_thread.run_sync(run, limiter=self._decode_limiter)

    async def run(
        self,
        recording: Recording,
        options: TranscribeOptions,
        speakers: SpeakerCount,
        timings: Timings,
        progress: StageProgress = ignore_progress,
    ) -> SpeechResult:
        """Who said what in decoded audio. Of several tracks each is its own speaker's.

        Raises:
            EngineUnavailable: a model cannot be loaded.
            InvalidInput: the engine does not know the language that was asked for.
        """
        first, *others = recording.tracks
        diarization: Diarization | None
        if others:
            transcription, diarization = await self._hear_tracks(recording.tracks, options, timings, progress)
        else:
            transcription, diarization = await self._hear(first, options, speakers, timings, progress)
        with timings.stage("attribute"):
            transcript, labels = attribute(transcription, diarization)
            stats = speaker_stats(transcript, diarization, labels)
        engines = self.engines | ({"diarization": "channels"} if others else {})
        heard = diarization.voices if diarization else {}
        voices = {labels[label]: voice for label, voice in heard.items() if label in labels}
        return SpeechResult(transcript, stats, first.duration_s, first.info, engines, voices)

    async def _hear(
        self,
        audio: Audio,
        options: TranscribeOptions,
        speakers: SpeakerCount,
        timings: Timings,
        progress: StageProgress,
    ) -> tuple[Transcription, Diarization | None]:
        """Both branches: side by side, or one after the other if the transcriber needs the turns."""
        transcriber = await anyio.to_thread.run_sync(self._transcriber.get, limiter=self._asr_limiter)

        async def diarize() -> Diarization | None:
            if self._diarizer is None:
                return None
            with timings.stage("diarize"):
                diarizer = await anyio.to_thread.run_sync(self._diarizer.get, limiter=self._diarization_limiter)
                run = partial(diarizer.diarize, audio, speakers, partial(progress, "diarize"))
                return await anyio.to_thread.run_sync(run, limiter=self._diarization_limiter)

        async def transcribe(turns: Diarization | None) -> Transcription:
            with timings.stage("transcribe"):
                run = partial(transcriber.transcribe, audio, options, turns, partial(progress, "transcribe"))
                return await anyio.to_thread.run_sync(run, limiter=self._asr_limiter)

        if transcriber.needs_turns:
            diarization = await diarize()
            return await transcribe(diarization), diarization
        return await all_of(transcribe(None), diarize())

    async def _hear_tracks(
        self, tracks: tuple[Audio, ...], options: TranscribeOptions, timings: Timings, progress: StageProgress
    ) -> tuple[Transcription, Diarization]:
        """Every track by itself; who speaks is known, only when is asked."""
        transcriber = await anyio.to_thread.run_sync(self._transcriber.get, limiter=self._asr_limiter)

        def hear(number: int, audio: Audio) -> tuple[Transcription, tuple[SpeakerTurn, ...]]:
            turns = tuple(replace(turn, speaker=f"channel {number}") for turn in speech_regions(audio))

            def report(fraction: float) -> None:
                progress("transcribe", (number + fraction) / len(tracks))

            return transcriber.transcribe(audio, options, Diarization(turns, turns), report), turns

        with timings.stage("transcribe"):
            heard = [
                await anyio.to_thread.run_sync(partial(hear, number, audio), limiter=self._asr_limiter)
                for number, audio in enumerate(tracks)
            ]
        segments = [
            replace(segment, speaker=f"channel {number}")
            for number, (transcription, _) in enumerate(heard)
            for segment in transcription.segments
        ]
        turns = tuple(sorted((turn for _, turns in heard for turn in turns), key=lambda turn: turn.start_s))
        language = next((transcription.language for transcription, _ in heard if transcription.language), None)
        return Transcription(tuple(segments), language), Diarization(turns, turns)
