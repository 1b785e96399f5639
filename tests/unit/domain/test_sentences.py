"""Stray words at a turn's edge, and decoders that repeat themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.sentences import mend_sentences, text_without_loops, words_without_loops
from backend.domain.transcript import Word


def words(text: str) -> list[Word]:
    return [Word(f" {word}") for word in text.split()]


@pytest.mark.parametrize(
    ("text", "speakers", "mended"),
    [
        ("We open on Monday.", "aaab", "aaaa"),
        ("We open on Monday.", "baaa", "aaaa"),
        ("We open on Monday. Good.", "aaaab", "aaaab"),
        ("We open on Monday", "aabb", "aabb"),
        ("We open on Monday", "abaa", "abaa"),
        ("Yes. We open on Monday.", "baaaa", "baaaa"),
        ("Yes please do.", "aab", "aab"),
        ("Is it open? It is.", "aaaba", "aaaba"),
    ],
)
def test_one_stray_word_at_a_sentences_edge_joins_the_rest(text: str, speakers: str, mended: str) -> None:
    assert "".join(mend_sentences(words(text), list(speakers))) == mended


@given(st.lists(st.sampled_from(["yes", "no.", "well", "ok?"]), max_size=20), st.data())
def test_mending_keeps_one_speaker_per_word_and_invents_none(text: list[str], data: st.DataObject) -> None:
    speakers = data.draw(st.lists(st.sampled_from("abc"), min_size=len(text), max_size=len(text)))
    mended = mend_sentences([Word(word) for word in text], speakers)
    assert len(mended) == len(text) and set(mended) <= set(speakers)


def test_a_repeated_phrase_is_cut_to_one() -> None:
    assert text_without_loops("Fine. " + "Thank you. " * 9) == "Fine. Thank you."
    assert text_without_loops("so " + "I do not know " * 5 + "really") == "so I do not know really"


def test_whatever_comes_twice_is_a_loop_where_decoding_did_not_end() -> None:
    said = "The later judges, and the tribes, and the tribes, and the tribes, and"
    assert text_without_loops(said, ended=False) == "The later judges, and the tribes, and"
    assert text_without_loops(said) == said


@pytest.mark.parametrize("text", ["no no no no", "ha ha ha ha ha", "bye bye, bye bye", "one two one two one two", ""])
def test_emphasis_is_not_a_loop(text: str) -> None:
    assert text_without_loops(text) == text


def test_words_with_times_lose_the_same_repetitions() -> None:
    kept = words_without_loops([Word(" again", n, n + 1) for n in range(20)])
    assert [(word.text, word.start_s) for word in kept] == [(" again", 0)]


@given(st.lists(st.text(alphabet="abcdefghij", min_size=4, max_size=6), max_size=30, unique=True))
def test_text_without_repetition_stays_as_it_is(text: list[str]) -> None:
    assert text_without_loops(" ".join(text)) == " ".join(text)
