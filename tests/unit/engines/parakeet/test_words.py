"""Tokens become words."""

from __future__ import annotations

import math

import pytest

from backend.domain.transcript import Word
from backend.engines.parakeet.words import LAST_TOKEN_S, words_of


def words(
    tokens: list[str], times_s: list[float], end_s: float = 100.0, logprobs: list[float] | None = None
) -> list[Word]:
    return list(words_of(tokens, times_s, logprobs or [], 10.0, end_s))


def test_a_token_with_a_space_begins_a_word_and_punctuation_belongs_to_the_word_before_it() -> None:
    found = words([" Good", " mor", "ning", ",", " Ann", "."], [0.0, 0.4, 0.6, 0.8, 1.2, 1.6])
    assert [word.text for word in found] == [" Good", " morning,", " Ann."]


def test_a_word_begins_with_its_first_token_and_ends_soon_after_its_last() -> None:
    [first, last] = words([" mor", "ning", " Ann"], [0.4, 0.8, 5.0])
    assert (first.start_s, first.end_s) == (10.4, pytest.approx(10.8 + LAST_TOKEN_S))
    assert (last.start_s, last.end_s) == (15.0, pytest.approx(15.0 + LAST_TOKEN_S))


def test_a_word_ends_when_the_next_begins() -> None:
    assert words([" a", " b"], [0.0, 0.08])[0].end_s == pytest.approx(10.08)


def test_words_at_the_same_frame_have_no_negative_length() -> None:
    first = words([" a", " b"], [0.4, 0.4])[0]
    assert (first.start_s, first.end_s) == (10.4, 10.4)


def test_no_word_ends_after_the_window() -> None:
    assert words([" a"], [1.95], end_s=12.0)[0].end_s == 12.0


def test_the_probability_is_the_geometric_mean_of_the_tokens() -> None:
    [word] = words([" mor", "ning"], [0.0, 0.1], logprobs=[math.log(0.9), math.log(0.4)])
    assert word.probability == pytest.approx(0.6)
    assert words([" a"], [0.0])[0].probability is None


def test_a_lone_space_is_no_word_and_the_first_token_may_lack_one() -> None:
    assert [word.text for word in words(["lo", " ", " b"], [0.0, 0.2, 0.4])] == [" lo", " b"]
    assert words([], []) == []
