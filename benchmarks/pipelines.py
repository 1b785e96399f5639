"""The pipelines that are compared, each run on one recording in a process of its own, so that peak memory is its own.

Which there are, and what a run of one gives; neither scores nor prints. Loading is not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backend  # noqa: F401 - before moonshine_voice, so that no library reports to its maker

if TYPE_CHECKING:
    from moonshine_voice.transcriber import TranscriptLine

    from backend.domain.transcript import Diarization, SpeakerTurn
    from backend.engines.base import Transcriber

Span = tuple[float, float, str]
"""Start and end in seconds, speaker."""
Said = tuple[float, float, str, str]
"""Start and end in seconds, speaker, text."""

ROOT = Path(__file__).resolve().parents[1]
WHISPER_MODELS = ("tiny.en", "base", "small", "large-v3-turbo")
STAGES = ("decode", "diarize", "transcribe", "attribute")
MAX_AUDIO_S = 1e6
NOBODY = "unknown"
"""Whose words those are that a pipeline gives to no speaker."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one pipeline made of one recording.

    `turns` are the diarizer's, `segments` the transcript's (None where only diarization runs); `cpu_s` is processor
    time of all cores; `stages` are wall-clock seconds, as far as the pipeline tells them apart.
    """

    pipeline: str
    audio_s: float
    total_s: float
    cpu_s: float
    peak_mb: int
    turns: Sequence[Span]
    segments: Sequence[Said] | None = None
    stages: dict[str, float] = field(default_factory=dict)

    @property
    def speakers(self) -> int:
        """Who speaks in the transcript, as a user sees it; without one, in the diarizer's turns."""
        return len({part[2] for part in (self.turns if self.segments is None else self.segments)} - {NOBODY})


class Stopwatch:
    """Wall-clock seconds by stage, and processor seconds over all of them."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._began, self._cpu_began = time.perf_counter(), time.process_time()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.stages[name] = time.perf_counter() - began

    def stop(self) -> tuple[float, float]:
        """Wall-clock and processor seconds since it was made."""
        return time.perf_counter() - self._began, time.process_time() - self._cpu_began


def run(pipeline: str, recording: Path, threads: int) -> Run:
    """Run a pipeline in a process of its own.

    Raises:
        subprocess.CalledProcessError: it failed; what it wrote to stderr is on the terminal.
    """
    command = [sys.executable, "-m", "benchmarks.pipelines", pipeline, str(recording.resolve()), str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def aperta(recording: Path, threads: int) -> Run:
    """The product's pipeline with its embedded engines, as the service runs it."""
    import anyio

    from backend.engines.moonshine.transcriber import MoonshineTranscriber

    return anyio.run(_aperta, "aperta", recording, threads, MoonshineTranscriber(threads))


def aperta_whisper(model: str, recording: Path, threads: int) -> Run:
    """The product's pipeline with a Whisper model, int8."""
    import anyio

    from backend.engines.whisper.transcriber import FasterWhisperTranscriber

    engine = FasterWhisperTranscriber(_model(model), device="cpu", threads=threads)
    return anyio.run(_aperta, f"aperta-{model}", recording, threads, engine)


def whisper(model: str, how: str, recording: Path, threads: int) -> Run:
    """faster-whisper's own decoding with the same model, its words attributed by the product."""
    import anyio

    from benchmarks.plain_whisper import PlainWhisper

    engine = PlainWhisper(_model(model), threads, batched=how == "batched")
    return anyio.run(_aperta, f"{how}-{model}", recording, threads, engine)


def _model(name: str) -> str:
    """The directory of a Whisper model, in MODELS_DIR or the hub's cache."""
    from backend.engines.catalogue import find_whisper

    models_dir = os.environ.get("MODELS_DIR")
    found = find_whisper(name, Path(models_dir) if models_dir else None)
    if found is None:
        raise SystemExit(f"Whisper {name} is not on this disk: run `aperta models pull {name}`.")
    return str(found)


def aperta_diarizer(recording: Path, threads: int) -> Run:
    """The product's diarizer alone."""
    from backend.domain.transcript import SpeakerCount
    from backend.engines.audio.samples import decode_tracks
    from backend.engines.community1.diarizer import Community1Diarizer

    diarizer = Community1Diarizer(threads=threads)
    watch = Stopwatch()
    with watch.stage("decode"):
        audio = decode_tracks(recording, separate=False, max_s=MAX_AUDIO_S)[0]
    with audio, watch.stage("diarize"):
        found = diarizer.diarize(audio, SpeakerCount(), lambda _: None)
    return _run("aperta-diarizer", audio.duration_s, watch, _spans(found.turns))


def moonshine(recording: Path, threads: int) -> Run:  # noqa: ARG001  (the library decides for itself)
    """moonshine-voice's own pipeline: transcription with `identify_speakers`.

    Without a model for word times, which the wheel does not bring, a line has one text and several speaker spans: the
    text goes to whoever talks longest in the line. With one the text is cut where the library says.
    """
    audio_s, watch, lines = _moonshine(recording, {})
    segments = [said for line in lines for said in _said(line)]
    return _run("moonshine", audio_s, watch, _line_spans(lines), segments)


def moonshine_diarizer(recording: Path, threads: int) -> Run:  # noqa: ARG001
    """moonshine-voice's own diarizer alone."""
    audio_s, watch, lines = _moonshine(recording, {"skip_transcription": "true"})
    return _run("moonshine-diarizer", audio_s, watch, _line_spans(lines))


PIPELINES: dict[str, Callable[[Path, int], Run]] = {
    "aperta": aperta,
    "aperta-diarizer": aperta_diarizer,
    "moonshine": moonshine,
    "moonshine-diarizer": moonshine_diarizer,
    **{f"aperta-{model}": partial(aperta_whisper, model) for model in WHISPER_MODELS},
    **{f"{how}-{model}": partial(whisper, model, how) for how in ("plain", "batched") for model in WHISPER_MODELS},
}


async def _aperta(name: str, recording: Path, threads: int, transcriber: Transcriber) -> Run:
    from backend.engines.community1.diarizer import Community1Diarizer
    from backend.engines.lazy import Lazy
    from backend.services.speech.pipeline import SpeechPipeline
    from backend.services.speech.steps import DirectSteps
    from backend.services.speech.values import SpeechOptions

    found: list[Diarization] = []
    overheard = _Overheard(Community1Diarizer(threads=threads), found.append)
    speech = SpeechPipeline(
        Lazy("transcriber", lambda: transcriber), Lazy("diarizer", lambda: overheard), max_audio_s=MAX_AUDIO_S
    )
    await speech.warm()
    watch, steps = Stopwatch(), DirectSteps()
    result = await speech.run(recording, SpeechOptions(), steps)
    watch.stages |= steps.timings_s
    segments = [(s.start_s, s.end_s, str(s.speaker), s.text) for s in result.transcript.segments]
    return _run(name, result.duration_s, watch, _spans(found[0].turns), segments)


class _Overheard:
    """A diarizer whose results somebody else hears too: the pipeline keeps them to itself."""

    def __init__(self, diarizer: Any, hear: Callable[[Diarization], None]) -> None:
        self.name = diarizer.name
        self._diarizer, self._hear = diarizer, hear

    def diarize(self, *args: Any) -> Diarization:
        found: Diarization = self._diarizer.diarize(*args)
        self._hear(found)
        return found


def _moonshine(recording: Path, options: dict[str, str]) -> tuple[float, Stopwatch, Sequence[TranscriptLine]]:
    from moonshine_voice.transcriber import ModelArch, Transcriber
    from moonshine_voice.utils import get_model_path

    from backend.engines.audio.samples import SAMPLE_RATE_HZ, decode_tracks

    options = {"identify_speakers": "true", "return_audio_data": "false", **options}
    pipeline = Transcriber(str(get_model_path("tiny-en")), ModelArch.TINY, options=options)
    watch = Stopwatch()
    with watch.stage("decode"):
        audio = decode_tracks(recording, separate=False, max_s=MAX_AUDIO_S)[0]
    with audio:
        lines = pipeline.transcribe_without_streaming(audio.read().tolist(), SAMPLE_RATE_HZ).lines
    return audio.duration_s, watch, lines


def _said(line: TranscriptLine) -> Iterator[Said]:
    spans = line.speaker_spans or []
    cut = [span for span in spans if span.end_char > span.start_char]
    text = line.text.encode()
    for span in cut:
        part = text[span.start_char : span.end_char].decode(errors="ignore").strip()
        yield span.start_time, span.start_time + span.duration, str(span.speaker_index), part
    if line.text.strip() and not cut:
        seconds = {span.speaker_index: 0.0 for span in spans}
        for span in spans:
            seconds[span.speaker_index] += span.duration
        speaker = max(seconds, key=lambda index: seconds[index]) if seconds else NOBODY
        yield line.start_time, line.start_time + line.duration, str(speaker), line.text


def _line_spans(lines: Sequence[TranscriptLine]) -> list[Span]:
    spans = [span for line in lines for span in line.speaker_spans or []]
    return [(span.start_time, span.start_time + span.duration, str(span.speaker_index)) for span in spans]


def _spans(turns: Sequence[SpeakerTurn]) -> list[Span]:
    return [(turn.start_s, turn.end_s, turn.speaker) for turn in turns]


def _run(
    pipeline: str, audio_s: float, watch: Stopwatch, turns: Sequence[Span], segments: Sequence[Said] | None = None
) -> Run:
    total_s, cpu_s = watch.stop()
    stages = {name: round(seconds, 3) for name, seconds in watch.stages.items()}
    return Run(pipeline, audio_s, round(total_s, 3), round(cpu_s, 3), _peak_mb(), turns, segments, stages)


def _peak_mb() -> int:
    """Most memory this process had resident; getrusage's figure starts with that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return round(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", choices=PIPELINES)
    parser.add_argument("recording", type=Path)
    parser.add_argument("threads", type=int)
    args = parser.parse_args()
    print("\n" + json.dumps(asdict(PIPELINES[args.pipeline](args.recording, args.threads))))


if __name__ == "__main__":
    _main()
