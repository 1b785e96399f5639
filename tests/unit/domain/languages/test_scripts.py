"""Scripts without blanks: where lines may break, and how many words there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.languages.scripts import break_apart, count_words
from backend.domain.transcript import Segment, Word

MIXED = st.text(alphabet=st.sampled_from("aé1.,「」。、漢字かっーเก็ที่ສາខ្ម한👩\u200d"), min_size=1)


@pytest.mark.parametrize(
    ("token", "pieces"),
    [
        ("well-kept.", ["well-kept."]),
        ("한국어", ["한국어"]),
        ("漢字、です。", ["漢", "字、", "で", "す。"]),
        ("「はい」と", ["「は", "い」", "と"]),
        ("ちょっとベーコン", ["ちょっ", "と", "ベー", "コ", "ン"]),
        ("iPhoneを", ["iPhone", "を"]),
        ("OK\uff01Next", ["OK\uff01", "Next"]),
        ("ที่แก้", ["ที่", "แก้"]),
        ("ខ្មែរ", ["ខ្មែ", "រ"]),
    ],
)
def test_a_line_breaks_only_where_the_script_allows(token: str, pieces: list[str]) -> None:
    assert break_apart(token) == pieces


@given(MIXED)
def test_breaking_apart_keeps_every_character(token: str) -> None:
    assert "".join(break_apart(token)) == token


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("Hello there — you.", 4),
        ("안녕하세요 여러분", 2),
        ("東京へ、行く。", 5),
        ("iPhone15を 買う", 4),
        ("สวัสดี", 1),
        ("สวัสดีครับทุกคน", 3),
    ],
)
def test_words_are_counted_by_blanks_or_by_characters(text: str, count: int) -> None:
    assert count_words(Segment(0, 1, text)) == count


def test_the_engines_words_count_where_a_script_has_no_blanks() -> None:
    words = (Word("図書館", 0, 1), Word("の", 1, 2), Word("。", 2, 2), Word("庭", 2, 3))
    assert count_words(Segment(0, 3, "図書館の。庭", words)) == 3


def test_blanks_count_where_a_script_has_them_even_if_the_engine_cut_its_words_up() -> None:
    words = (Word(" un", 0, 1), Word("believable", 1, 2), Word(" news", 2, 3))
    assert count_words(Segment(0, 3, "unbelievable news", words)) == 2
