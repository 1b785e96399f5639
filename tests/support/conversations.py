"""Conversations of known words and turns, put together from single utterances. As files with .rttm and .stm beside."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.engines.audio.samples import SAMPLE_RATE_HZ
from tests.support.media import decode, write

Floats = NDArray[np.float32]

EVALUATION = Path(__file__).resolve().parents[3] / "shared" / "eval"
"""Recordings with known words, where the machine has them beside the clone."""
GAP_S = (-0.3, 1.0)


def compose(folder: Path, name: str, *, seed: int, speakers: int, seconds: float) -> Path:
    """Write NAME.flac, NAME.rttm and NAME.stm; people interrupt each other now and then."""
    rng = random.Random(seed)
    with (EVALUATION / "utterances" / "transcripts.tsv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    people = rng.sample(sorted({row["speaker"] for row in rows}), speakers)
    queues = {who: rng.sample(own, len(own)) for who in people if (own := [r for r in rows if r["speaker"] == who])}
    mix = np.zeros(round((seconds + 60) * SAMPLE_RATE_HZ), dtype=np.float32)
    at_s, before, rttm, stm = 0.5, "", [], []
    while at_s < seconds and (ready := [who for who in people if who != before and queues[who]]):
        before = rng.choice(ready)
        row = queues[before].pop()
        samples = samples_of(EVALUATION / "utterances" / row["file"])
        first, length_s = round(at_s * SAMPLE_RATE_HZ), len(samples) / SAMPLE_RATE_HZ
        mix[first : first + len(samples)] += samples
        rttm.append(f"SPEAKER {name} 1 {at_s:.3f} {length_s:.3f} <NA> <NA> {before} <NA> <NA>")
        stm.append(f"{name} 1 {before} {at_s:.3f} {at_s + length_s:.3f} {row['text']}")
        at_s += length_s + rng.uniform(*GAP_S)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.rttm").write_text("\n".join(rttm) + "\n", encoding="utf-8")
    (folder / f"{name}.stm").write_text("\n".join(stm) + "\n", encoding="utf-8")
    return save(folder / f"{name}.flac", np.clip(mix[: round((at_s + 1) * SAMPLE_RATE_HZ)], -1, 1))


def samples_of(path: Path) -> Floats:
    """(n_samples,) float32, mono, 16 kHz of a recording."""
    with decode(path, max_s=36_000) as audio:
        return audio.read()


def save(path: Path, samples: Floats) -> Path:
    """Write samples as FLAC."""
    return write(path, samples[None], codec="flac")
