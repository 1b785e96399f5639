"""How many words of a transcript are wrong. Pure."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import numpy as np

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


@dataclass(frozen=True, slots=True)
class WordErrors:
    """Words of the reference, and the least number of words replaced, left out or added that explain a transcript."""

    words: int
    errors: int

    @property
    def rate(self) -> float:
        """The word error rate; it may be above 1."""
        return self.errors / self.words if self.words else float(self.errors > 0)


def count_word_errors(reference: str, heard: str) -> WordErrors:
    """Compare word by word, without regard to case and punctuation.

    Numbers in digits and in words are different words, so rates are a little higher than with a normaliser made for
    one language.
    """
    wanted, found = _words(reference), _words(heard)
    return WordErrors(len(wanted), _distance(wanted, found))


def _words(text: str) -> list[str]:
    return [word.replace("\u2019", "'") for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold())]


def _distance(wanted: list[str], found: list[str]) -> int:
    """Levenshtein's distance, a row at a time."""
    numbers = {word: number for number, word in enumerate({*wanted, *found})}
    columns = np.array([numbers[word] for word in found], dtype=np.int64)
    steps = np.arange(len(found) + 1)
    row = steps.copy()
    for word in wanted:
        changed = row[:-1] + (columns != numbers[word])
        best = np.minimum(row + 1, np.concatenate(([row[0] + 1], changed)))
        # An added word costs one more than its left neighbour: a running minimum once the slope is taken out.
        row = np.minimum.accumulate(best - steps) + steps
    return int(row[-1])
