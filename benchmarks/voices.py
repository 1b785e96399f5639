"""How surely voices are recognised: equal error rate over pairs, and what recognition makes of everybody.

    python -m benchmarks.voices FOLDER [--threads 2]

FOLDER/SPEAKER/*.flac are utterances of one person each, as in LibriSpeech. Every utterance is diarized as one speaker;
that speaker's voice is compared with all others.

Recognition: every person is enrolled with one utterance; every other utterance is then to be named, once with its
speaker among the enrolled, and once without, when naming anybody is a false accept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.domain.transcript import SpeakerCount
from backend.domain.voices import MARGIN, THRESHOLD, Voice, recognise
from backend.engines.audio.samples import decode_tracks
from backend.engines.community1.diarizer import Community1Diarizer

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Utterance:
    speaker: str
    voice: Voice
    duration_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """Rates are shares of 1. Pairs: at THRESHOLD alone; recognition: at THRESHOLD and MARGIN."""

    people: int
    utterances: int
    seconds: float
    same_pairs: int
    other_pairs: int
    same_least: float
    same_median: float
    other_most: float
    eer: float
    eer_threshold: float
    pairs_false_accept: float
    pairs_false_reject: float
    known_trials: int
    known_named: float
    known_misnamed: float
    known_unnamed: float
    stranger_trials: int
    stranger_named: float


def main() -> None:
    args = _arguments()
    utterances = list(embed(args.folder, args.threads))
    if len({utterance.speaker for utterance in utterances}) < 2:
        raise SystemExit(f"{args.folder} has fewer than two folders with utterances that can be heard.")
    report = measure(utterances)
    print(_table(report))
    if args.json:
        args.json.write_text(json.dumps(asdict(report), indent=1) + "\n")


def embed(folder: Path, threads: int) -> Iterator[Utterance]:
    """The voice of each utterance; whatever has no speech in it is named and left out."""
    diarizer = Community1Diarizer(threads=threads)
    for path in sorted(folder.glob("*/*.flac")):
        with decode_tracks(path, separate=False, max_s=600)[0] as audio:
            heard = diarizer.diarize_with_voices(audio, SpeakerCount(exact=1), lambda _: None)
            voice = next(iter(heard.voices.values()), None)
            if voice is None:
                print(f"nobody is heard in {path}")
            else:
                yield Utterance(path.parent.name, tuple(float(value) for value in voice), audio.duration_s)


def measure(utterances: list[Utterance]) -> Report:
    same, other = _pairs(utterances)
    eer, eer_threshold = equal_error(same, other)
    known, strangers = _recognition(utterances)
    return Report(
        people=len({utterance.speaker for utterance in utterances}),
        utterances=len(utterances),
        seconds=round(sum(utterance.duration_s for utterance in utterances), 1),
        same_pairs=len(same),
        other_pairs=len(other),
        same_least=float(same.min()),
        same_median=float(np.median(same)),
        other_most=float(other.max()),
        eer=eer,
        eer_threshold=eer_threshold,
        pairs_false_accept=float((other >= THRESHOLD).mean()),
        pairs_false_reject=float((same < THRESHOLD).mean()),
        known_trials=len(known),
        known_named=known.count("right") / len(known),
        known_misnamed=known.count("wrong") / len(known),
        known_unnamed=known.count("nobody") / len(known),
        stranger_trials=len(strangers),
        stranger_named=1 - strangers.count("nobody") / len(strangers),
    )


def equal_error(same: Scores, other: Scores) -> tuple[float, float]:
    """Where as many pairs of one person are rejected as pairs of two people are accepted: that rate, and the threshold.

    Between two scores every threshold does the same, so the middle of the best stretch is given.
    """
    scores = np.unique(np.concatenate([same, other]))
    thresholds = np.concatenate([scores[:1] - 1e-6, (scores[:-1] + scores[1:]) / 2, scores[-1:] + 1e-6])
    rejected = np.searchsorted(np.sort(same), thresholds) / len(same)
    accepted = 1 - np.searchsorted(np.sort(other), thresholds) / len(other)
    worse = np.maximum(rejected, accepted)
    best = np.flatnonzero(worse == worse.min())
    return float((rejected + accepted)[best[0]] / 2), float((thresholds[best[0]] + thresholds[best[-1]]) / 2)


def _pairs(utterances: list[Utterance]) -> tuple[Scores, Scores]:
    """Cosine similarities of all pairs of one person, and of two people."""
    same: list[float] = []
    other: list[float] = []
    for one, two in combinations(utterances, 2):
        score = float(np.dot(one.voice, two.voice))
        (same if one.speaker == two.speaker else other).append(score)
    return np.array(same), np.array(other)


def _recognition(utterances: list[Utterance]) -> tuple[list[str], list[str]]:
    """What each trial ends with: right, wrong or nobody; of known speakers, and of strangers."""
    voices: dict[str, list[Voice]] = {}
    for utterance in utterances:
        voices.setdefault(utterance.speaker, []).append(utterance.voice)
    known, strangers = [], []
    for turn in range(min(len(own) for own in voices.values())):
        enrolled = {speaker: [own[turn]] for speaker, own in voices.items()}
        for utterance in utterances:
            others = {speaker: own for speaker, own in enrolled.items() if speaker != utterance.speaker}
            strangers.append(_outcome(utterance, others))
            if utterance.voice not in enrolled[utterance.speaker]:
                known.append(_outcome(utterance, enrolled))
    return known, strangers


def _outcome(utterance: Utterance, enrolled: dict[str, list[Voice]]) -> str:
    named = recognise({"Speaker 1": utterance.voice}, enrolled).get("Speaker 1")
    return "nobody" if named is None else "right" if named == utterance.speaker else "wrong"


def _table(report: Report) -> str:
    r = report
    return "\n".join(
        [
            f"{r.utterances} utterances ({r.seconds} s) of {r.people} people",
            "",
            "| measure | value |",
            "| --- | --- |",
            f"| pairs of one person, of two people | {r.same_pairs}, {r.other_pairs} |",
            f"| similarity, one person: least, median | {r.same_least:.3f}, {r.same_median:.3f} |",
            f"| similarity, two people: most | {r.other_most:.3f} |",
            f"| equal error rate | {r.eer:.2%} |",
            f"| threshold at equal error | {r.eer_threshold:.3f} |",
            f"| pairs at {THRESHOLD}: false accept | {r.pairs_false_accept:.2%} |",
            f"| pairs at {THRESHOLD}: false reject | {r.pairs_false_reject:.2%} |",
            f"| known, at {THRESHOLD} and margin {MARGIN}: named rightly | {r.known_named:.2%} of {r.known_trials} |",
            f"| known: named wrongly (false accept) | {r.known_misnamed:.2%} |",
            f"| known: not named (false reject) | {r.known_unnamed:.2%} |",
            f"| strangers: named (false accept) | {r.stranger_named:.2%} of {r.stranger_trials} |",
        ]
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="one folder of .flac files per speaker")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
