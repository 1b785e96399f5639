"""How fast Whisper runs here: int8 and batches against plain decoding, threads, and what our adapter adds.

The models have random weights of the true shapes and stop after a usual number of words, so the work is the real one
and nothing is downloaded. Run from the repository: `python -m benchmarks.whisper --shapes tiny base`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.engines.audio.samples import SAMPLE_RATE_HZ
from backend.engines.base import TranscribeOptions
from backend.engines.whisper.transcriber import FasterWhisperTranscriber
from tests.support.random_models import BASE, SMALL, TINY, as_audio, build_whisper, vowels

SHAPES = {"tiny": TINY, "base": BASE, "small": SMALL}
Job = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Result:
    """One measurement; `speed` is seconds of audio in one second, `times_plain` is against the row "plain float32"."""

    shape: str
    variant: str
    threads: int
    seconds: float
    speed: float
    times_plain: float


def main() -> None:
    args = _arguments()
    samples = vowels(args.audio_seconds)
    results = [result for shape in args.shapes for result in _measure(shape, samples, args)]
    overhead = {shape: _overhead(shape, samples, args) for shape in args.shapes}
    machine = f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores"
    print(_table(results, overhead, machine, args.audio_seconds))
    if args.json:
        report = {"machine": machine, "results": [asdict(r) for r in results], "adapter_overhead": overhead}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def _measure(shape: str, samples: NDArray[np.float32], args: argparse.Namespace) -> list[Result]:
    """Every variant of one shape on the same audio."""
    duration_s, rows = len(samples) / SAMPLE_RATE_HZ, []
    with tempfile.TemporaryDirectory() as directory:
        build_whisper(Path(directory), SHAPES[shape])
        for variant, threads, job in _variants(directory, samples, args):
            seconds = _best(job, 1 if shape == "small" else args.repeat)
            rows.append((variant, threads, seconds))
    plain = rows[0][2]
    return [
        Result(shape, variant, threads, round(seconds, 3), round(duration_s / seconds, 1), round(plain / seconds, 2))
        for variant, threads, seconds in rows
    ]


def _variants(directory: str, samples: NDArray[np.float32], args: argparse.Namespace) -> list[tuple[str, int, Job]]:
    threads = max(args.threads)
    return [
        ("plain float32", threads, _library(directory, samples, "float32", threads, None)),
        ("plain int8", threads, _library(directory, samples, "int8", threads, None)),
        ("batched float32", threads, _library(directory, samples, "float32", threads, args.batch_size)),
        *(("batched int8", n, _library(directory, samples, "int8", n, args.batch_size)) for n in args.threads),
    ]


def _library(
    path: str,
    samples: NDArray[np.float32],
    compute_type: str,
    threads: int,
    batch_size: int | None,
    words: bool = False,
) -> Job:
    """A call of the library as a user of it would write it.

    Without word times by default: plain decoding goes on from the last word it placed, and words of random weights lie
    anywhere, so it would decode some windows several times.
    """
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    model = WhisperModel(path, device="cpu", compute_type=compute_type, cpu_threads=threads)
    options: dict[str, Any] = {"language": "en", "word_timestamps": words, "condition_on_previous_text": False}
    if batch_size is None:
        # As the batched decoder does: one temperature (random text is improbable and would be decoded six times over)
        # and no timestamp tokens, so that both write the same number of tokens.
        options |= {"temperature": 0.0, "without_timestamps": True, "vad_filter": True}
        return lambda: list(model.transcribe(samples, **options)[0])
    return lambda: list(BatchedInferencePipeline(model).transcribe(samples, batch_size=batch_size, **options)[0])


def _overhead(shape: str, samples: NDArray[np.float32], args: argparse.Namespace) -> float:
    """Our adapter's CPU time over the library's for the same work, minus 1: the median of pairs run in turn.

    CPU time, because a neighbour on the machine disturbs the clock by more than the difference looked for.
    """
    threads = max(args.threads)
    with tempfile.TemporaryDirectory() as directory, as_audio(samples) as audio:
        build_whisper(Path(directory), SHAPES[shape])
        engine = FasterWhisperTranscriber(directory, device="cpu", threads=threads, batch_size=args.batch_size)
        library = _library(directory, samples, "int8", threads, args.batch_size, words=True)

        def ours() -> object:
            return engine.transcribe(audio, TranscribeOptions("en"), None, lambda _: None)

        library(), ours()
        ratios = [_seconds(ours, time.process_time) / _seconds(library, time.process_time) for _ in range(args.repeat)]
    return round(statistics.median(ratios) - 1, 4)


def _best(job: Job, repeat: int) -> float:
    return min(_seconds(job) for _ in range(repeat))


def _seconds(job: Job, clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    job()
    return clock() - start


def _table(results: list[Result], overhead: dict[str, float], machine: str, duration_s: float) -> str:
    lines = [
        f"{duration_s:.0f} s of audio on {machine}; random weights, times real, text nonsense.",
        "",
        "| shape | variant | threads | seconds | times real time | times plain float32 |",
        "|---|---|---|---|---|---|",
        *(f"| {r.shape} | {r.variant} | {r.threads} | {r.seconds} | {r.speed} | {r.times_plain} |" for r in results),
        "",
        *(f"Adapter over the library, {shape}: {share:+.1%}" for shape, share in overhead.items()),
    ]
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["tiny", "base"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--audio-seconds", type=float, default=30.0)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
