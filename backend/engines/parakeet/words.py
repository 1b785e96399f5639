"""Tokens with times become words with times and probabilities. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from backend.domain.transcript import Word

FRAME_S = 0.08
"""One step of the encoder; a token's time is that of the frame where it begins."""
LAST_TOKEN_S = 2 * FRAME_S
"""How long the last token of a word sounds, unless the next word begins before: the library drops its duration."""


def words_of(
    tokens: Sequence[str], times_s: Sequence[float], logprobs: Sequence[float], start_s: float, end_s: float
) -> Iterator[Word]:
    """The words of one window.

    Args:
        tokens: pieces of words; one that begins with a space begins a word.
        times_s: when each begins, from the start of the window.
        logprobs: the natural logarithm of each one's probability; empty: not known.
        start_s: of the window in the recording.
        end_s: no word ends after it.
    """
    starts = [number for number, token in enumerate(tokens) if number == 0 or token.startswith(" ")]
    for first, after in pairwise([*starts, len(tokens)]):
        text = "".join(tokens[first:after])
        if not text.strip():
            continue
        begins_s = min(end_s, start_s + times_s[first])
        next_s = start_s + times_s[after] if after < len(tokens) else end_s
        ends_s = min(start_s + times_s[after - 1] + LAST_TOKEN_S, max(next_s, begins_s), end_s)
        yield Word(f" {text.strip()}", begins_s, max(begins_s, ends_s), _probability(logprobs[first:after]))


def _probability(logprobs: Sequence[float]) -> float | None:
    """The geometric mean over a word's tokens."""
    return min(1.0, math.exp(sum(logprobs) / len(logprobs))) if logprobs else None
