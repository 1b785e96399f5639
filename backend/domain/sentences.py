"""Reading words as sentences: who said a stray word, and where an engine only repeats itself. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean
from typing import TypeVar

from backend.domain.transcript import Word

T = TypeVar("T")

SENTENCE_ENDS = (".", "?", "!", "…", "。", "\uff1f", "\uff01", "।", "؟")
CLAUSE_ENDS = (",", ";", ":", "،", "؛", "、", "\uff0c", "\uff1b", "\uff1a", "—")
MIN_SENTENCE_WORDS = 4
"""Shorter ones ("Yes, I do.") may well be two people's."""
REACH_S = 0.6
"""How far from a speaker's turns a word can be and still be that speaker's."""
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


def mend_sentences(
    words: Sequence[Word], speakers: Sequence[str], away_s: Callable[[Word, str], float] = lambda _word, _speaker: 0.0
) -> list[str]:
    """Move changes of speaker to where one sentence ends and the next begins, if that is near.

    Diarization and word times each err by some tenths of a second, and where two people talk at once their words come
    one after the other, so the first or last words of a sentence often fall into the neighbour's turn. A sentence goes
    to the speaker of most of it, if its other words are within `REACH_S` of that speaker's turns. In a sentence that
    stays divided, a change of speaker moves to its edge, or to a comma, that is as near.

    Args:
        words: in order, as the engine heard them.
        speakers: one per word.
        away_s: how far outside of a speaker's turns a word is, in seconds; 0 while that speaker talks.

    Returns:
        One speaker per word.
    """
    mended: list[str] = []
    for sentence in _divided(words, SENTENCE_ENDS):
        theirs = list(speakers[len(mended) : len(mended) + len(sentence)])
        if len(set(theirs)) > 1:
            main = _main_speaker(sentence, theirs, away_s)
            theirs = [main] * len(theirs) if main else _mended_clauses(sentence, theirs, away_s)
        mended += theirs
    return mended


def _main_speaker(
    sentence: Sequence[Word], speakers: Sequence[str], away_s: Callable[[Word, str], float]
) -> str | None:
    """The speaker of most of a sentence, if nothing says that its other words are another speaker's.

    Other words in its middle may be another speaker's, who said them in between, unless the first one talked on.
    """
    main, count = Counter(speakers).most_common(1)[0]
    if len(sentence) < MIN_SENTENCE_WORDS or count * 2 <= len(sentence):
        return None
    first, last = speakers.index(main), len(speakers) - 1 - speakers[::-1].index(main)
    for number, (word, speaker) in enumerate(zip(sentence, speakers, strict=True)):
        reach_s = 0.0 if first < number < last else REACH_S
        if speaker != main and away_s(word, main) > reach_s:
            return None
    return main


def _mended_clauses(
    sentence: Sequence[Word], speakers: Sequence[str], away_s: Callable[[Word, str], float]
) -> list[str]:
    """Speakers with each change moved to an edge of the sentence, or to the nearest comma, within `REACH_S`."""
    commas = list(accumulate(len(clause) for clause in _divided(sentence, CLAUSE_ENDS)))[:-1]
    changes = [n for n in range(1, len(speakers)) if speakers[n] != speakers[n - 1]]
    bounds = [0, *changes, len(sentence)]
    lengths = [stop - start for start, stop in pairwise(bounds)]
    mended = list(speakers)
    for change in changes:
        places = sorted(commas, key=lambda place: abs(place - change))
        if len(sentence) >= MIN_SENTENCE_WORDS:
            places = [0] * (change == changes[0] and lengths[0] < lengths[1]) + places
            places = [len(sentence)] * (change == changes[-1] and lengths[-1] < lengths[-2]) + places
        for place in places:
            moved = range(min(place, change), max(place, change))
            before, after = speakers[change - 1], speakers[change]
            giver, taker = (before, after) if place < change else (after, before)
            if all(mended[n] == giver and away_s(sentence[n], taker) <= REACH_S for n in moved):
                mended[moved.start : moved.stop] = [taker] * len(moved)
                break
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


def words_without_loops(words: Sequence[Word], duration_s: float | None = None, *, ended: bool = True) -> list[Word]:
    """`text_without_loops` on words with times: the time of a repetition is what it must fit into.

    Words that are unlikely as well as repeated are a loop, however much time they have.

    Args:
        duration_s: how long the audio is, for an engine whose times say little of words it only repeats; they then
            must fit into all of it, as in `text_without_loops`.
    """

    def room(run: _Run) -> tuple[float, float]:
        repeated = words[run.start : run.end]
        if fmean(1.0 if word.probability is None else word.probability for word in repeated) < LOOP_PROBABILITY:
            return 0.0, 0.0
        span_s, others = (repeated[-1].end_s or 0.0) - (repeated[0].start_s or 0.0), 0
        if duration_s is not None:
            span_s, others = duration_s, len(words) - run.n_words
        return FASTEST_WORDS_PER_S * span_s - others, CALM_WORDS_PER_S * span_s - others

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


def ends_sentence(word: Word) -> bool:
    return _ends(word, SENTENCE_ENDS)


def _ends(word: Word, marks: tuple[str, ...]) -> bool:
    return word.text.rstrip(" \"'”\u2019)]»").endswith(marks)


def _divided(words: Sequence[Word], marks: tuple[str, ...]) -> list[list[Word]]:
    """Words cut after those that end with one of `marks`."""
    parts: list[list[Word]] = [[]]
    for word in words:
        parts[-1].append(word)
        if _ends(word, marks):
            parts.append([])
    return [part for part in parts if part]


def _key(word: str) -> str:
    return word.strip().strip(".,!?;:…\"'").lower()
