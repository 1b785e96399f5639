"""Reading words as sentences: who said a stray word, and where an engine only repeats itself. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TypeVar

from backend.domain.transcript import Word

T = TypeVar("T")

SENTENCE_ENDS = (".", "?", "!", "…", "。", "\uff1f", "\uff01", "।", "؟")
MIN_SENTENCE_WORDS = 4
LOOP_TIMES = {1: 8, 2: 5}
"""How often one word, or two, must follow themselves to be a decoder's loop rather than emphasis; longer runs: 4."""
LOOP_TIMES_LONGER = 4
RUNAWAY_TIMES = 2
"""The same for a decoder that did not come to an end by itself."""
LOOP_WORDS_MOST = 12


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


def without_loops(items: Sequence[T], key: Sequence[str], *, ended: bool = True) -> list[T]:
    """Cut what a decoder repeats over and over ("thank you thank you thank you …") down to one time.

    Args:
        items: words in any form.
        key: what makes two of them the same, one per item.
        ended: whether the decoder ended on its own; if not, any phrase that occurs twice in a row is a loop.
    """
    keep: list[T] = []
    position = 0
    while position < len(items):
        length, times = _loop_at(key, position, ended=ended)
        keep += items[position : position + length]
        position += length * times
    return keep


def text_without_loops(text: str, *, ended: bool = True) -> str:
    """`without_loops` on plain text; text without a loop comes back unchanged."""
    words = text.split()
    kept = without_loops(words, [_key(word) for word in words], ended=ended)
    return text if len(kept) == len(words) else " ".join(kept)


def words_without_loops(words: Sequence[Word]) -> list[Word]:
    """`without_loops` on words with times."""
    return without_loops(words, [_key(word.text) for word in words])


def _loop_at(key: Sequence[str], position: int, *, ended: bool) -> tuple[int, int]:
    """Length of the phrase that loops from here and how often it comes; (1, 1) if none does."""
    for length in range(1, LOOP_WORDS_MOST + 1):
        phrase = key[position : position + length]
        times = 1
        while key[position + times * length : position + (times + 1) * length] == phrase and phrase:
            times += 1
        if times >= (LOOP_TIMES.get(length, LOOP_TIMES_LONGER) if ended else RUNAWAY_TIMES):
            return length, times
    return 1, 1


def _sentences(words: Sequence[Word]) -> list[list[Word]]:
    sentences: list[list[Word]] = [[]]
    for word in words:
        sentences[-1].append(word)
        if word.text.rstrip(" \"'”\u2019)]»").endswith(SENTENCE_ENDS):
            sentences.append([])
    return [sentence for sentence in sentences if sentence]


def _key(word: str) -> str:
    return word.strip().strip(".,!?;:…\"'").lower()
