"""Reading words as sentences: who said a stray word, and where an engine only repeats itself. Pure functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean
from typing import TypeVar

from backend.domain.transcript import Word

T = TypeVar("T")

SENTENCE_ENDS = (".", "?", "!", "…", "。", "\uff1f", "\uff01", "।", "؟")
MIN_SENTENCE_WORDS = 4
LOOP_TIMES = {1: 8, 2: 5}
"""How often one word, or two, must follow themselves to be suspected as a decoder's loop; longer phrases: 4."""
LOOP_TIMES_LONGER = 4
RUNAWAY_TIMES = 2
"""The same at the end of a text that the decoder did not end by itself."""
LOOP_WORDS_MOST = 12
FASTEST_WORDS_PER_S = 7.0
"""Faster than people talk; a suspect that would need more is a loop."""
CALM_WORDS_PER_S = 2.0
"""How much of a loop is kept: what a person says in the time at this pace, and at least one repetition."""
LOOP_PROBABILITY = 0.2
"""A suspect whose words are less likely than this, on average, is a loop."""


@dataclass(frozen=True, slots=True)
class _Run:
    """A phrase of `length` words that comes `times` times from `start` on."""

    start: int
    length: int
    times: int

    @property
    def n_words(self) -> int:
        return self.length * self.times

    @property
    def end(self) -> int:
        return self.start + self.n_words

    def is_last_of(self, n_words: int) -> bool:
        """Whether at most the beginning of one more repetition follows."""
        return n_words - self.end <= self.length


def mend_sentences(words: Sequence[Word], speakers: Sequence[str]) -> list[str]:
    """Give a single stray word at a sentence's edge to the speaker of the rest of the sentence.

    Diarization and word times each err by some tenths of a second, so the first or last word of a sentence often falls
    into the neighbour's turn. A sentence in which the speaker changes in any other way is left as it is.

    Args:
        words: in order, as the engine heard them.
        speakers: one per word.

    Returns:
        One speaker per word.
    """
    mended: list[str] = []
    for sentence in _sentences(words):
        theirs = list(speakers[len(mended) : len(mended) + len(sentence)])
        runs = [(speaker, len(list(run))) for speaker, run in groupby(theirs)]
        if len(theirs) >= MIN_SENTENCE_WORDS and len(runs) == 2 and min(runs[0][1], runs[1][1]) == 1:
            theirs = [max(runs, key=lambda run: run[1])[0]] * len(theirs)
        mended += theirs
    return mended


def text_without_loops(text: str, duration_s: float, *, ended: bool = True) -> str:
    """Cut what a decoder repeats over and over ("thank you thank you thank you …"); keep what people do.

    People repeat themselves too: slogans, digits, prayers. A repetition is only cut if the audio has no room for it, or
    if it is the end of a text that the decoder did not end.

    Args:
        text: comes back unchanged if it has no loop.
        duration_s: how long the audio is that the text was heard in.
        ended: whether the decoder ended by itself, before its limit of tokens.
    """
    words = text.split()

    def room(run: _Run) -> tuple[float, float]:
        others = len(words) - run.n_words
        return FASTEST_WORDS_PER_S * duration_s - others, CALM_WORDS_PER_S * duration_s - others

    kept = _without_loops(words, [_key(word) for word in words], room, ended=ended)
    return text if len(kept) == len(words) else " ".join(kept)


def words_without_loops(words: Sequence[Word], *, ended: bool = True) -> list[Word]:
    """`text_without_loops` on words with times: the time of a repetition is what it must fit into.

    Words that are unlikely as well as repeated are a loop, however much time they have.
    """

    def room(run: _Run) -> tuple[float, float]:
        repeated = words[run.start : run.end]
        span_s = (repeated[-1].end_s or 0.0) - (repeated[0].start_s or 0.0)
        if fmean(1.0 if word.probability is None else word.probability for word in repeated) < LOOP_PROBABILITY:
            return 0.0, 0.0
        return FASTEST_WORDS_PER_S * span_s, CALM_WORDS_PER_S * span_s

    return _without_loops(words, [_key(word.text) for word in words], room, ended=ended)


def _without_loops(
    items: Sequence[T], key: Sequence[str], room: Callable[[_Run], tuple[float, float]], *, ended: bool
) -> list[T]:
    """Items without those that only a loop has made.

    Args:
        key: what makes two of them the same, one per item.
        room: how many words at most, and how many at a calm pace, the audio has room for in place of a run.
    """
    keep: list[T] = []
    position = 0
    while position < len(items):
        run = _run_at(key, position, ended=ended)
        times = run.times
        if times > 1:
            most, calm = room(run)
            if run.n_words > most or (not ended and run.is_last_of(len(items))):
                times = min(times, max(1, int(calm / run.length)))
        keep += items[position : position + run.length * times]
        position = run.end
    return keep


def _run_at(key: Sequence[str], position: int, *, ended: bool) -> _Run:
    """The phrase that is suspiciously often repeated from here; a single word, one time, if none is."""
    for length in range(1, LOOP_WORDS_MOST + 1):
        phrase = key[position : position + length]
        times = 1
        while key[position + times * length : position + (times + 1) * length] == phrase and phrase:
            times += 1
        run = _Run(position, length, times)
        if times >= LOOP_TIMES.get(length, LOOP_TIMES_LONGER):
            return run
        if not ended and times >= RUNAWAY_TIMES and run.is_last_of(len(key)):
            return run
    return _Run(position, 1, 1)


def _sentences(words: Sequence[Word]) -> list[list[Word]]:
    sentences: list[list[Word]] = [[]]
    for word in words:
        sentences[-1].append(word)
        if word.text.rstrip(" \"'”\u2019)]»").endswith(SENTENCE_ENDS):
            sentences.append([])
    return [sentence for sentence in sentences if sentence]


def _key(word: str) -> str:
    return word.strip().strip(".,!?;:…\"'").lower()
