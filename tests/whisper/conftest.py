"""Real weights: Whisper base and tiny.en from the folder that `make test-whisper` fills, and the built-in models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from backend.engines.base import TranscribeOptions, Transcriber
from backend.engines.catalogue import find_whisper
from backend.engines.community1.diarizer import Community1Diarizer
from backend.engines.lazy import Lazy
from backend.engines.moonshine.transcriber import MoonshineTranscriber
from backend.engines.whisper.transcriber import FasterWhisperTranscriber
from backend.services.speech.pipeline import SpeechPipeline
from backend.services.speech.steps import DirectSteps
from backend.services.speech.values import SpeechOptions, SpeechResult
from benchmarks.plain_whisper import PlainWhisper

MODELS_DIR = Path(os.environ.get("WHISPER_TEST_MODELS", "/nowhere"))

Process = Callable[..., SpeechResult]


def load(name: str) -> Transcriber:
    """The engine by its name in the catalogue; after "plain " that of the library's own decoding."""
    if name == "moonshine":
        return MoonshineTranscriber(threads=2)
    path = find_whisper(name.removeprefix("plain "), MODELS_DIR)
    if path is None:
        pytest.skip(f"Whisper {name} is not in WHISPER_TEST_MODELS; run `make test-whisper`")
    if name.startswith("plain "):
        return PlainWhisper(str(path), threads=2, batched=False)
    return FasterWhisperTranscriber(name, models_dir=MODELS_DIR, device="cpu")


@pytest.fixture(scope="session")
def process() -> Process:
    """The whole pipeline on a recording, as the service runs it: `process(engine, recording, language=None)`."""
    diarizer = Community1Diarizer(threads=2)
    pipelines: dict[str, SpeechPipeline] = {}

    def run(engine: str, recording: Path, language: str | None = None) -> SpeechResult:
        if engine not in pipelines:
            loaded = load(engine)
            pipelines[engine] = SpeechPipeline(
                Lazy(engine, lambda: loaded), Lazy("diarizer", lambda: diarizer), max_audio_s=36_000
            )
        options = SpeechOptions(transcribe=TranscribeOptions(language))
        return anyio.run(pipelines[engine].run, recording, options, DirectSteps())

    return run
