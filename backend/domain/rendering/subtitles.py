"""A transcript cut into subtitles: short cues of one or two lines, at the times of the words. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby, pairwise

from rich.cells import cell_len, chop_cells

from backend.domain.languages.scripts import break_apart, may_break
from backend.domain.transcript import Segment, Transcript, Word

MAX_CUE_MS = 7000
MAX_LINES = 2
MAX_COLUMNS = 42
"""Of a line, its speaker included. Chinese, Japanese and Korean characters are two columns wide."""
MIN_SHARE = 1 / 3
"""A cue is cut after punctuation if at least this share of what fits stays in it."""

_CLOSING = "\"'”»)]」』\u2019\uff09"
_SENTENCE_ENDS = tuple(".?!…。｡।؟།\uff1f\uff01")
_CLAUSE_ENDS = tuple(",;:、､،؛—\uff0c\uff1b\uff1a")


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle. `label` and the first line stand on one line; the first line may be empty beside a long label."""

    start_ms: int
    end_ms: int
    speaker: str
    label: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Unit:
    """Text that is never divided, in its time."""

    text: str
    start_s: float
    end_s: float
    spaced: bool
    """Whether a blank stands before it."""

    @property
    def columns(self) -> int:
        return cell_len(self.text) + self.spaced


def cues(transcript: Transcript) -> list[Cue]:
    """Return the subtitles in order of their starts; each word is in one of them.

    A cue lasts at most `MAX_CUE_MS` and has at most `MAX_LINES` lines of `MAX_COLUMNS`. It is cut after a sentence,
    else after a clause, else between words. Words without times share the time between their neighbours by their width.
    """
    found = [cue for segment in transcript.segments for cue in _segment_cues(segment)]
    return sorted(found, key=lambda cue: cue.start_ms)


def _segment_cues(segment: Segment) -> Iterator[Cue]:
    units = _glued(_units(segment))
    label = _label(segment.speaker or "")
    while units:
        count = _cut(units, label)
        taken, units = units[:count], units[count:]
        start_ms, end_ms = round(taken[0].start_s * 1000), round(taken[-1].end_s * 1000)
        end_ms = min(max(end_ms, start_ms + 1), start_ms + MAX_CUE_MS)
        yield Cue(start_ms, end_ms, segment.speaker or "", label, tuple(_lines(taken, label)))


def _label(speaker: str) -> str:
    """The speaker as subtitles show them, shortened to a line."""
    name = " ".join(speaker.split())
    if cell_len(name) >= MAX_COLUMNS:
        name = chop_cells(name, MAX_COLUMNS - 2)[0] + "…"
    return f"{name}:"


def _units(segment: Segment) -> list[_Unit]:
    words = _words(segment)
    return [
        unit
        for word, (start_s, end_s) in zip(words, _times(words, segment), strict=True)
        for unit in _divided(word, start_s, end_s)
    ]


def _words(segment: Segment) -> list[Word]:
    """The words, with the blanks that the text has; the whole text as one word without times if they differ."""
    spoken = [word for word in segment.words if word.text.strip()]
    lengths = [len("".join(word.text.split())) for word in spoken]
    if "".join("".join(word.text.split()) for word in spoken) != "".join(segment.text.split()):
        return [Word(text) for text in [segment.text] if text.strip()]
    letters = re.findall(r"\s*\S", segment.text)
    edges = pairwise(accumulate(lengths, initial=0))
    return [replace(word, text="".join(letters[a:b])) for word, (a, b) in zip(spoken, edges, strict=True)]


def _times(words: Sequence[Word], segment: Segment) -> list[tuple[float, float]]:
    """Start and end of each word, none before the end of the word before."""
    times: list[tuple[float, float]] = []
    cursor_s = segment.start_s
    runs = [(timed, list(run)) for timed, run in groupby(words, key=_is_timed)]
    for number, (timed, run) in enumerate(runs):
        if timed:
            for word in run:
                start_s = max(cursor_s, word.start_s or 0.0)
                cursor_s = max(start_s, word.end_s or 0.0)
                times.append((start_s, cursor_s))
        else:
            following = [word.start_s for _, later in runs[number + 1 : number + 2] for word in later[:1]]
            end_s = following[0] if following and following[0] is not None else segment.end_s
            times += _shares([word.text for word in run], cursor_s, max(cursor_s, end_s))
            cursor_s = times[-1][1]
    return times


def _is_timed(word: Word) -> bool:
    return word.start_s is not None and word.end_s is not None


def _divided(word: Word, start_s: float, end_s: float) -> list[_Unit]:
    """A word in parts if it has blanks, came without times, or is too long for a line or a cue."""
    parts: list[str] = []
    long = (end_s - start_s) * 1000 > MAX_CUE_MS
    for token in re.findall(r"\s*\S+", word.text):
        text = token.lstrip()
        whole = _is_timed(word) and not long and cell_len(text) <= MAX_COLUMNS
        pieces = [short for piece in ([text] if whole else break_apart(text)) for short in _chopped(piece)]
        parts += [token[: -len(text)][:1] + pieces[0], *pieces[1:]]
    shares = _shares(parts, start_s, end_s)
    return [_Unit(part.strip(), *time, part[:1].isspace()) for part, time in zip(parts, shares, strict=True)]


def _chopped(text: str) -> list[str]:
    return chop_cells(text, MAX_COLUMNS) if cell_len(text) > MAX_COLUMNS else [text]


def _shares(texts: Sequence[str], start_s: float, end_s: float) -> list[tuple[float, float]]:
    """Divide a time in proportion to the texts' widths."""
    edges = list(accumulate((max(1, cell_len(text.strip())) for text in texts), initial=0))
    return list(pairwise(start_s + (end_s - start_s) * edge / edges[-1] for edge in edges))


def _glued(units: Sequence[_Unit]) -> list[_Unit]:
    """Units joined where no line may break between them, as far as they fit."""
    glued: list[_Unit] = []
    for unit in units:
        last = glued[-1] if glued else None
        if last is None or unit.spaced or may_break(last.text[-1], unit.text[0]) or not _fit_together(last, unit):
            glued.append(unit)
        else:
            glued[-1] = replace(last, text=last.text + unit.text, end_s=unit.end_s)
    return glued


def _fit_together(first: _Unit, second: _Unit) -> bool:
    fast = (second.end_s - first.start_s) * 1000 <= MAX_CUE_MS
    return fast and cell_len(first.text + second.text) <= MAX_COLUMNS


def _cut(units: Sequence[_Unit], label: str) -> int:
    """How many units the next cue takes."""
    most = _most(units, label)
    if most == len(units):
        return most
    widths = list(accumulate(unit.columns for unit in units[:most]))
    for ends in (_SENTENCE_ENDS, _CLAUSE_ENDS):
        for count in range(most, 0, -1):
            if widths[count - 1] >= widths[-1] * MIN_SHARE and units[count - 1].text.rstrip(_CLOSING).endswith(ends):
                return count
    return most


def _most(units: Sequence[_Unit], label: str) -> int:
    """How many units fit; at least one."""
    lines = [""]
    for count, unit in enumerate(units):
        lines = _extended(lines, unit, label)
        too_long = (unit.end_s - units[0].start_s) * 1000 > MAX_CUE_MS
        if count and (too_long or len(lines) > MAX_LINES):
            return count
    return len(units)


def _lines(units: Sequence[_Unit], label: str) -> list[str]:
    lines = [""]
    for unit in units:
        lines = _extended(lines, unit, label)
    return lines


def _extended(lines: list[str], unit: _Unit, label: str) -> list[str]:
    """Lines with one more unit; the label takes its part of the first."""
    *others, last = lines
    reserved = 0 if others else cell_len(label) + 1
    joined = f"{last} {unit.text}" if unit.spaced and last else last + unit.text
    fits = reserved + cell_len(joined) <= MAX_COLUMNS
    return [*others, joined] if fits else [*lines, unit.text]
