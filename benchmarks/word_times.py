"""When Moonshine says that words begin and end, against Whisper's times of the same words.

    python -m benchmarks.word_times RECORDING|FOLDER ... --whisper DIR [--snr-db 10] [--cache FILE] [--json FILE]

Of folders every FLAC and WAV file is taken, with those of the folders inside. DIR holds a faster-whisper model. Words
that both engines heard are compared. `--snr-db` adds white noise that far below the speech, for both engines; `--cache`
keeps Whisper's words. The true times are unknown: Whisper's, too, are read from its attention, and a pause is often
part of the word after it. "sounding starts" are compared with the end of that silence instead of Whisper's start.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from backend.domain.transcript import Word
from backend.engines.audio.samples import SAMPLE_RATE_HZ, decode_tracks
from backend.engines.moonshine.alignment import CLOSURE_FRAMES, FRAME_S, FRAME_SAMPLES, Sound, placed_words
from backend.engines.moonshine.model import MoonshineModel
from benchmarks.report import UNKNOWN, describe, machine, table

Timed = tuple[str, float, float]
"""A word with its start and end in seconds."""

HEAD = ("recordings", "noise", "times of", "words", "bias ms", "median ms", "90 % within ms", "within 100 ms %")
SUFFIXES = (".flac", ".wav")
KINDS = ("starts", "sounding starts", "ends")
PIECE_S = 25.0


@dataclass(frozen=True, slots=True)
class Compared:
    """Of a recording: how much later Moonshine puts edges of words, in seconds by kind, and processor seconds."""

    late_s: dict[str, list[float]]
    total_s: float
    aligning_s: float


class Whisper:
    """Whisper's words, from a cache where they are known."""

    def __init__(self, folder: Path, cache: Path | None) -> None:
        self._folder, self._cache = folder, cache
        self._known: dict[str, list[Timed]] = json.loads(cache.read_text()) if cache and cache.exists() else {}

    def words(self, samples: NDArray[np.float32]) -> list[Timed]:
        key = f"{self._folder.name} {hashlib.sha256(samples.tobytes()).hexdigest()[:16]}"
        if key not in self._known:
            self._known[key] = self._heard(samples)
            if self._cache:
                self._cache.write_text(json.dumps(self._known))
        return self._known[key]

    def _heard(self, samples: NDArray[np.float32]) -> list[Timed]:
        from faster_whisper import WhisperModel

        threads = len(os.sched_getaffinity(0))
        model = WhisperModel(str(self._folder), device="cpu", compute_type="int8", cpu_threads=threads)
        segments, _ = model.transcribe(samples, language="en", word_timestamps=True, condition_on_previous_text=False)
        return [(w.word.strip(), float(w.start), float(w.end)) for s in segments for w in s.words or ()]


def main() -> None:
    args = _arguments()
    where, whisper, model = machine(), Whisper(args.whisper, args.cache), MoonshineModel()
    rows, report = [], []
    for path in args.recordings:
        found = [_compare(samples, whisper, model) for samples in _samples(path, args.snr_db)]
        noise = UNKNOWN if args.snr_db is None else f"{args.snr_db:g} dB"
        for name in KINDS:
            rows.append([path.name, noise, name, *_figures([late_s for c in found for late_s in c.late_s[name]])])
        share = sum(c.aligning_s for c in found) / max(1e-9, sum(c.total_s for c in found))
        report.append({"recordings": str(path), "aligning_share": round(share, 4)})
        print(f"{path.name}: placing words took {100 * share:.1f} % of Moonshine's processor time")
    print(describe(where), table(HEAD, rows, left=3), sep="\n\n")
    if args.json:
        args.json.write_text(json.dumps({"machine": where, "rows": rows, "shares": report}, indent=1) + "\n")


def _samples(path: Path, snr_db: float | None) -> Iterator[NDArray[np.float32]]:
    files = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES) if path.is_dir() else [path]
    for file in files:
        with decode_tracks(file, separate=False, max_s=1e6)[0] as audio:
            samples = audio.read().copy()
        if snr_db is not None:
            noise = np.random.default_rng(0).normal(0, 1, len(samples)) * np.sqrt(np.mean(samples**2))
            samples = (samples + noise * 10 ** (-snr_db / 20)).astype(np.float32)
        yield samples


def _compare(samples: NDArray[np.float32], whisper: Whisper, model: MoonshineModel) -> Compared:
    ours, total_s, aligning_s = _moonshine(samples, model)
    theirs = whisper.words(samples)
    matcher = difflib.SequenceMatcher(None, [_key(w[0]) for w in ours], [_key(w[0]) for w in theirs], autojunk=False)
    pairs = [
        (ours[block.a + n], theirs[block.b + n]) for block in matcher.get_matching_blocks() for n in range(block.size)
    ]
    n_frames = len(samples) // FRAME_SAMPLES
    sound = Sound(samples, n_frames)
    late_s = {
        "starts": [a[1] - b[1] for a, b in pairs],
        "sounding starts": [a[1] - _sounding_start(b, sound, n_frames) for a, b in pairs],
        "ends": [a[2] - b[2] for a, b in pairs],
    }
    return Compared(late_s, total_s, aligning_s)


def _sounding_start(word: Timed, sound: Sound, n_frames: int) -> float:
    """The start of a word, or the end of the last silence in it, by the measure that places Moonshine's words."""
    start = min(int(word[1] / FRAME_S), n_frames - 1)
    stop = min(max(start + 1, math.ceil(word[2] / FRAME_S)), n_frames)
    begin = sound.runs(start, stop)[-1][0]
    return begin * FRAME_S if begin - start >= CLOSURE_FRAMES else word[1]


def _moonshine(samples: NDArray[np.float32], model: MoonshineModel) -> tuple[list[Timed], float, float]:
    """Words of a recording in equal pieces, all processor seconds, and those that placing the words took."""
    aligning_s = [0.0]

    def timed(*args: Any) -> list[Word]:
        began = time.thread_time()
        words = placed_words(*args)
        aligning_s[0] += time.thread_time() - began
        return words

    began = time.process_time()
    pieces = np.array_split(samples, max(1, round(len(samples) / SAMPLE_RATE_HZ / PIECE_S + 0.5)))
    with mock.patch("backend.engines.moonshine.model.placed_words", timed):
        heard = model.transcribe(pieces)
    total_s = time.process_time() - began
    starts_s = np.cumsum([0, *(len(piece) for piece in pieces)]) / SAMPLE_RATE_HZ
    timed_words = [
        (w.text.strip(), start_s + (w.start_s or 0.0), start_s + (w.end_s or 0.0))
        for start_s, words in zip(starts_s, heard, strict=False)
        for w in words
    ]
    return timed_words, total_s, aligning_s[0]


def _figures(late_s: Sequence[float]) -> list[object]:
    if not late_s:
        return [0, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]
    late = np.array(late_s) * 1000
    size = np.abs(late)
    figures = (np.median(late), np.median(size), np.percentile(size, 90), 100 * np.mean(size <= 100))
    return [len(late), *(f"{figure:.0f}" for figure in figures)]


def _key(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--whisper", type=Path, required=True, help="folder of a faster-whisper model")
    parser.add_argument("--snr-db", type=float, help="add white noise this far below the speech")
    parser.add_argument("--cache", type=Path, help="keep Whisper's words in this file")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
