"""Measures one model on one recording: what it hears, how long that takes, and how much memory."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path

from backend.domain.transcript import Diarization, Transcription
from backend.engines.audio.allowance import Allowance
from backend.engines.audio.samples import Audio, decode_tracks
from backend.engines.audio.vad import speech_regions
from backend.engines.base import TranscribeOptions, Transcriber
from backend.engines.progress import Progress, ignore_progress
from backend.services.speech.choice import choose
from backend.services.speech.models import Models
from backend.services.speech.values import Choice


@dataclass(frozen=True, slots=True)
class Measured:
    """What a model did with a recording.

    Attributes:
        engine: what the engine calls itself.
        choice: the model and the language.
        text: what it heard.
        duration_s: of the recording.
        load_s: seconds to load the model and to hear the language.
        transcribe_s: seconds to transcribe, without diarization.
        peak_bytes: the most memory that this process has had.
    """

    engine: str
    choice: Choice
    text: str
    duration_s: float
    load_s: float
    transcribe_s: float
    peak_bytes: int

    @property
    def times_real_time(self) -> float:
        return self.duration_s / self.transcribe_s


def measure(
    models: Models,
    path: Path,
    options: TranscribeOptions,
    *,
    max_s: float,
    allowance: Allowance | None = None,
    progress: Progress = ignore_progress,
) -> Measured:
    """Transcribe a recording with one model; blocks.

    Raises:
        InvalidInput: the file is no usable recording, or the model does not know its language.
        ModelMissing: there is no such model on this disk.
        EngineUnavailable: it cannot be loaded.
        TooLarge: longer than `max_s`.
    """
    [audio] = decode_tracks(path, separate=False, max_s=max_s, allowance=allowance)
    with audio:
        began = time.perf_counter()
        choice = choose(models, [audio], options, progress)
        with models.lease(models.get(choice.model)) as engine:
            loaded = time.perf_counter()
            heard = _transcribe(engine, audio, options, choice, progress)
            done = time.perf_counter()
        text = " ".join(segment.text for segment in heard.segments)
        peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Measured(engine.name, choice, text, audio.duration_s, loaded - began, done - loaded, peak_bytes)


def _transcribe(
    engine: Transcriber, audio: Audio, options: TranscribeOptions, choice: Choice, progress: Progress
) -> Transcription:
    """An engine that needs turns gets those of one nameless speaker."""
    turns = tuple(speech_regions(audio, progress)) if engine.needs_turns else ()
    given = TranscribeOptions(choice.language, options.prompt, options.hotwords, choice.model)
    return engine.transcribe(audio, given, Diarization(turns, turns) if turns else None, progress)
