"""How wrong a transcript is: DER, WER and cpWER against what is known, and sums of them over recordings.

NAME.rttm beside a recording says who spoke when, NAME.stm who said what; what is missing is not scored.

DER: diarization error rate over the whole recording, overlap scored; without a collar, and with ±0.25 s around each
boundary left out (`der25`).
WER: all words in time order against all words in time order, through Whisper's English text normaliser.
dropped: the part of the WER that is words without any word in their place, the deletions of the alignment.
cpWER: concatenated minimum-permutation WER; a word counts only with the right speaker.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report import UNKNOWN

if TYPE_CHECKING:
    from pyannote.core import Annotation

    from benchmarks.pipelines import Run, Said, Span

PACKAGES = {
    "jiwer": "jiwer",
    "meeteval": "meeteval",
    "pyannote.metrics.diarization": "pyannote.metrics",
    "whisper_normalizer.english": "whisper-normalizer",
}
KNOWN = (".rttm", ".stm")
COLLARS_S = {"": 0.0, "25": 0.5}
"""By suffix; pyannote.metrics takes the width of both sides together."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is known of a recording: who spoke when, and (start, speaker, text) of everything said."""

    turns: Sequence[Span] = ()
    said: Sequence[tuple[float, str, str]] = ()

    @property
    def speakers(self) -> int:
        return len({speaker for *_, speaker in self.turns} or {speaker for _, speaker, _ in self.said})


@dataclass(frozen=True, slots=True)
class Rate:
    """Errors among so much (seconds or words); rates of several recordings add up."""

    wrong: float = 0.0
    among: float = 0.0

    def __add__(self, other: Rate) -> Rate:
        return Rate(self.wrong + other.wrong, self.among + other.among)

    def __str__(self) -> str:
        return f"{100 * self.wrong / self.among:.1f}" if self.among else UNKNOWN


@dataclass(frozen=True, slots=True)
class Score:
    """Errors of one recording, or of several together.

    `der` and `der25` are of the diarizer's turns, `segment_der` and `segment_der25` of the transcript's segments.
    `counts_right` are recordings whose number of speakers was found, `counted` those in which it is known.
    """

    rates: dict[str, Rate] = field(default_factory=dict)
    counts_right: int = 0
    counted: int = 0

    def __add__(self, other: Score) -> Score:
        names = dict.fromkeys([*self.rates, *other.rates])
        rates = {name: self.rates.get(name, Rate()) + other.rates.get(name, Rate()) for name in names}
        return Score(rates, self.counts_right + other.counts_right, self.counted + other.counted)

    def show(self, name: str) -> str:
        """A rate in per cent, "–" where there is none."""
        return str(self.rates.get(name, Rate()))

    def as_json(self) -> dict[str, Any]:
        percents = {name: round(100 * rate.wrong / rate.among, 2) for name, rate in self.rates.items() if rate.among}
        return percents | {"speaker_count_right": self.counts_right, "speaker_count_known": self.counted}


def total(scores: Iterable[Score]) -> Score:
    return sum(scores, Score())


def missing_packages() -> str | None:
    """A sentence that says what to install, None if nothing is missing."""
    missing = [package for module, package in PACKAGES.items() if not _importable(module)]
    if not missing:
        return None
    return (
        f"Scoring needs {', '.join(missing)}: `python -m pip install -c constraints.txt -e '.[bench]'` "
        f"(or `pip install {' '.join(missing)}`)."
    )


def find_recordings(paths: Sequence[Path]) -> list[Path]:
    """The paths themselves; of folders, the recordings whose turns or words are known, by name."""
    found = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    return [file for file in dict.fromkeys(found) if file in paths or _is_known(file)]


def find_truth(recording: Path) -> Truth:
    """What lies beside the recording."""
    rttm, stm = recording.with_suffix(".rttm"), recording.with_suffix(".stm")
    return Truth(_read_rttm(rttm) if rttm.exists() else (), _read_stm(stm) if stm.exists() else ())


def score(truth: Truth, run: Run) -> Score:
    """Errors of a run, as far as they are known. Needs the packages of `missing_packages`."""
    rates = _der("der", truth, run.turns, run.audio_s)
    if run.segments is not None:
        rates |= _der("segment_der", truth, [segment[:3] for segment in run.segments], run.audio_s)
        rates |= _words(truth, sorted(run.segments, key=lambda said: said[0])) if truth.said else {}
    known = truth.speakers > 0
    return Score(rates, int(known and run.speakers == truth.speakers), int(known))


def _is_known(file: Path) -> bool:
    return file.suffix not in KNOWN and any(file.with_suffix(suffix).exists() for suffix in KNOWN)


def _der(name: str, truth: Truth, turns: Sequence[Span], audio_s: float) -> dict[str, Rate]:
    if not truth.turns:
        return {}
    from pyannote.core import Segment
    from pyannote.metrics.diarization import DiarizationErrorRate

    reference, hypothesis, whole = _annotation(truth.turns), _annotation(turns), Segment(0, audio_s)
    rates = {}
    for suffix, collar_s in COLLARS_S.items():
        parts = DiarizationErrorRate(collar=collar_s)(reference, hypothesis, uem=whole, detailed=True)
        wrong_s = parts["confusion"] + parts["missed detection"] + parts["false alarm"]
        rates[name + suffix] = Rate(wrong_s, parts["total"])
    return rates


def _words(truth: Truth, segments: Sequence[Said]) -> dict[str, Rate]:
    import jiwer
    import meeteval

    rates: dict[str, Rate] = {}
    if len(truth.said) == 1 or len({start_s for start_s, _, _ in truth.said}) > 1:  # else nothing is in time order
        said = _normalised(text for _, _, text in truth.said)
        counted = jiwer.process_words(said, _normalised(text for *_, text in segments))
        wrong = counted.substitutions + counted.deletions + counted.insertions
        among = counted.hits + counted.substitutions + counted.deletions
        rates |= {"wer": Rate(wrong, among), "dropped": Rate(counted.deletions, among)}
    known = _by_speaker((speaker, text) for _, speaker, text in truth.said)
    heard = _by_speaker((speaker, text) for *_, speaker, text in segments) or {"nobody": ""}
    found = meeteval.wer.cp_word_error_rate(known, heard, reference_sort=False, hypothesis_sort=False)
    return rates | {"cpwer": Rate(found.errors, found.length)}


def _by_speaker(said: Iterable[tuple[str, str]]) -> dict[str, str]:
    texts: dict[str, list[str]] = {}
    for speaker, text in said:
        texts.setdefault(speaker, []).append(text)
    return {speaker: _normalised(own) for speaker, own in texts.items()}


def _normalised(texts: Iterable[str]) -> str:
    text: str = _normaliser()(" ".join(texts))
    return text


@cache
def _normaliser() -> Any:
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


def _annotation(turns: Sequence[Span]) -> Annotation:
    from pyannote.core import Annotation, Segment

    annotation = Annotation()
    for number, (start_s, end_s, speaker) in enumerate(turns):
        if end_s > start_s:
            annotation[Segment(start_s, end_s), number] = speaker
    return annotation


def _read_rttm(path: Path) -> list[Span]:
    fields = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [(float(f[3]), float(f[3]) + float(f[4]), f[7]) for f in fields]


def _read_stm(path: Path) -> list[tuple[float, str, str]]:
    fields = [line.split(None, 5) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return sorted((float(f[3]), f[2], f[5]) for f in fields)


def _importable(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True
