"""Stray words at a turn's edge, and decoders that repeat themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.sentences import mend_sentences, text_without_loops, words_without_loops
from backend.domain.transcript import Word


def words(text: str) -> list[Word]:
    return [Word(f" {word}") for word in text.split()]


def mended(text: str, speakers: str, outside_a: str = "", outside_b: str = "") -> str:
    """One letter per word: its speaker. One digit: how many tenths of a second it is outside of a speaker's turns."""
    heard = words(text)
    tenths = {"a": outside_a or "1" * len(heard), "b": outside_b or "1" * len(heard)}
    number = {id(word): n for n, word in enumerate(heard)}
    return "".join(
        mend_sentences(heard, list(speakers), lambda word, speaker: int(tenths[speaker][number[id(word)]]) / 10)
    )


@pytest.mark.parametrize(
    ("text", "speakers", "expected"),
    [
        ("We open on Monday.", "aaab", "aaaa"),
        ("We open on Monday.", "baaa", "aaaa"),
        ("I will collect them myself.", "bbaaa", "aaaaa"),
        ("We open on Monday. Good.", "aaaab", "aaaab"),
        ("We open on Monday", "aabb", "aabb"),
        ("We open on Monday", "abaa", "abaa"),
        ("Yes. We open on Monday.", "baaaa", "baaaa"),
        ("Yes please do.", "aab", "aab"),
        ("Is it open? It is.", "aaaba", "aaaba"),
        ("It is very fine. I will collect them.", "aaabbbbb", "aaaabbbb"),
    ],
)
def test_odd_words_near_a_sentences_edge_join_the_rest(text: str, speakers: str, expected: str) -> None:
    assert mended(text, speakers) == expected


@pytest.mark.parametrize(("away_s", "expected"), [("6611", "aaaa"), ("7111", "baaa"), ("6111", "aaaa")])
def test_only_words_within_six_tenths_of_a_second_change_hands(away_s: str, expected: str) -> None:
    assert mended("We open on Monday.", "baaa", away_s) == expected


def test_a_word_in_the_middle_of_a_sentence_changes_hands_where_its_speaker_talks_on() -> None:
    assert mended("We open, mhm, on Monday.", "aabaa", "00000") == "aaaaa"
    assert mended("We open, mhm, on Monday.", "aabaa", "00100") == "aabaa"


WRONG = "If nothing goes wrong, I will drive there tomorrow."


@pytest.mark.parametrize(
    ("text", "speakers", "outside_a", "outside_b", "expected"),
    [
        (WRONG, "aaaaaabbb", "000000099", "999953000", "aaaabbbbb"),
        (WRONG, "aaabbbbbb", "000013999", "999000000", "aaaabbbbb"),
        (WRONG, "aaaaaabbb", "000000099", "999983000", "aaaaaabbb"),
        (WRONG, "baaaabbbb", "100099999", "099900000", "aaaabbbbb"),
        (WRONG.replace(",", ""), "aaaaaabbb", "000000099", "999953000", "aaaaaabbb"),
    ],
)
def test_in_a_divided_sentence_the_speaker_changes_at_a_near_comma(
    text: str, speakers: str, outside_a: str, outside_b: str, expected: str
) -> None:
    assert mended(text, speakers, outside_a, outside_b) == expected


@given(st.lists(st.sampled_from(["yes", "no.", "well", "ok?"]), max_size=20), st.data())
def test_mending_keeps_one_speaker_per_word_and_invents_none(text: list[str], data: st.DataObject) -> None:
    speakers = data.draw(st.lists(st.sampled_from("abc"), min_size=len(text), max_size=len(text)))
    theirs = mend_sentences([Word(word) for word in text], speakers)
    assert len(theirs) == len(text) and set(theirs) <= set(speakers)


def test_a_phrase_repeated_faster_than_anybody_talks_is_cut_to_one() -> None:
    assert text_without_loops("Fine. " + "Thank you. " * 9, 1) == "Fine. Thank you."
    assert text_without_loops("so " + "I do not know " * 5 + "really", 2) == "so I do not know really"


def test_what_comes_twice_at_the_end_is_a_loop_where_decoding_did_not_end() -> None:
    said = "The later judges, and the tribes, and the tribes, and the tribes, and"
    assert text_without_loops(said, 2, ended=False) == "The later judges, and the tribes, and"
    assert text_without_loops(said, 2) == said


def test_a_decoder_that_does_not_end_leaves_as_many_repetitions_as_a_calm_voice_has_time_for() -> None:
    assert text_without_loops("It is " + "zero, " * 30 + "ze", 5, ended=False) == "It is " + "zero, " * 7 + "ze"


def test_what_was_repeated_before_a_loop_stays() -> None:
    said = "no no no, I said, stop"
    assert text_without_loops(f"{said} it it it it it it it it", 3, ended=False) == f"{said} it"


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [
        ("no no no no", 1),
        ("ha ha ha ha ha", 1),
        ("bye bye, bye bye", 1),
        ("one two one two one two", 2),
        ("It begins with " + "four, " * 9 + "and then seven.", 5),
        ("We want more pay. " * 5, 6),
        ("Lord, have mercy on us. " * 6 + "Amen.", 12),
        ("no " * 30, 8),
        ("", 0),
    ],
)
def test_what_people_have_time_to_repeat_is_not_a_loop(text: str, duration_s: float) -> None:
    assert text_without_loops(text, duration_s) == text


def test_words_that_each_take_their_time_are_all_kept() -> None:
    spoken = [Word(" again", n * 0.4, n * 0.4 + 0.3, 0.9) for n in range(20)]
    assert words_without_loops(spoken) == spoken


def test_words_that_share_a_moment_are_a_loop() -> None:
    piled = [Word(" again", 3.0, 3.1, 0.9), *[Word(" again", 3.1, 3.1, 0.9)] * 19]
    assert words_without_loops(piled) == piled[:1]


def test_words_whose_times_say_little_must_fit_into_the_whole_audio() -> None:
    piled = [Word(" again", 3.0, 3.1, 0.9)] * 20
    assert words_without_loops(piled, 10.0) == piled
    assert len(words_without_loops(piled, 1.0)) == 2


def test_words_that_are_unlikely_and_repeated_are_a_loop() -> None:
    unlikely = [Word(" again", n, n + 1, 0.05) for n in range(20)]
    assert words_without_loops(unlikely) == unlikely[:1]


@given(st.lists(st.text(alphabet="abcdefghij", min_size=4, max_size=6), max_size=30, unique=True))
def test_text_without_repetition_stays_as_it_is(text: list[str]) -> None:
    assert text_without_loops(" ".join(text), 0) == " ".join(text)
