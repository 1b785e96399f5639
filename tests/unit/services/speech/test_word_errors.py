"""Word errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.services.speech.word_errors import count_word_errors


@pytest.mark.parametrize(
    ("reference", "heard", "errors"),
    [
        ("Good morning, Ann.", "good morning ann", 0),
        ("Don\u2019t go", "don't go", 0),
        ("one two three", "one three", 1),
        ("one three", "one two three", 1),
        ("one two three", "one too three", 1),
        ("one two", "", 2),
        ("Straße", "STRASSE", 0),
        ("日本語 です", "日本語 でした", 1),
        ("a b c d", "b c d a", 2),
    ],
)
def test_words_replaced_left_out_and_added_are_counted(reference: str, heard: str, errors: int) -> None:
    assert count_word_errors(reference, heard).errors == errors


def test_the_rate_is_per_word_of_the_reference() -> None:
    assert count_word_errors("a b c d", "a b").rate == 0.5
    assert count_word_errors("a", "b c d").rate == 3.0
    assert (count_word_errors("", "").rate, count_word_errors("", "a").rate) == (0.0, 1.0)


def plain_distance(wanted: list[str], found: list[str]) -> int:
    row = list(range(len(found) + 1))
    for i, word in enumerate(wanted, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(found, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_the_distance_is_levenshteins(wanted: list[str], found: list[str]) -> None:
    assert count_word_errors(" ".join(wanted), " ".join(found)).errors == plain_distance(wanted, found)
