"""Subtitles: every word once and in order, in cues that can be read."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from backend.domain.rendering.subtitles import Cue, cues
from backend.domain.transcript import Segment, Transcript, Word

JAPANESE = "みなさんおはようございます。きょうはとしょかんのうしろにあるあたらしいにわについてはなします。" * 3
SPOKEN = st.text(alphabet=st.sampled_from("ab.,? 　漢字かっー。、「」ที่แກ한👩\u200d\n"), max_size=60)
TIMES = st.none() | st.floats(0, 60)


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    """Of words with or without times, in any order, or of text alone."""
    texts = draw(st.lists(SPOKEN, max_size=20))
    start_s, length_s = draw(st.floats(0, 4000)), draw(st.floats(0, 60))
    words = tuple(Word(text, *(draw(st.tuples(TIMES, TIMES)))) for text in texts)
    text = draw(st.sampled_from(["".join(texts).strip(), " ".join(texts)]))
    speaker = draw(st.sampled_from(["Speaker 1", "Ада " * 30, "図書館" * 9]))
    return Segment(start_s, start_s + length_s, text, draw(st.sampled_from([words, ()])), speaker)


def letters(text: str) -> str:
    return "".join(text.split())


def shown(found: list[Cue]) -> str:
    return letters("".join("".join(cue.lines) for cue in found))


@given(segments())
def test_every_word_is_shown_once_and_in_order(segment: Segment) -> None:
    assert shown(cues(Transcript((segment,)))) == letters(segment.text)


@given(st.lists(segments(), max_size=4))
def test_no_cue_is_longer_or_wider_than_people_read(said: list[Segment]) -> None:
    for cue in cues(Transcript(tuple(said))):
        first, *others = cue.lines
        lines = [f"{cue.label} {first}".rstrip(), *others]
        assert 0 < cue.end_ms - cue.start_ms <= 7000
        assert len(lines) <= 2 and all(cell_len(line) <= 42 for line in lines)


@given(segments())
def test_the_cues_of_a_segment_follow_each_other(segment: Segment) -> None:
    found = cues(Transcript((segment,)))
    for cue, following in pairwise(found):
        assert cue.end_ms <= max(following.start_ms, cue.start_ms + 1)


@given(st.lists(segments(), max_size=4))
def test_cues_are_in_order_of_their_starts(said: list[Segment]) -> None:
    starts = [cue.start_ms for cue in cues(Transcript(tuple(said)))]
    assert starts == sorted(starts)


def test_cues_start_and_end_with_their_words() -> None:
    words = (Word(" Good", 1.0, 1.4), Word(" morning.", 1.4, 2.0), Word(" Bye.", 12.5, 13.0))
    found = cues(Transcript((Segment(1.0, 13.0, "Good morning. Bye.", words, "Speaker 1"),)))
    assert [(cue.start_ms, cue.end_ms, cue.lines) for cue in found] == [
        (1000, 2000, ("Good morning.",)),
        (12500, 13000, ("Bye.",)),
    ]


def test_a_cue_is_cut_after_a_sentence_rather_than_in_the_next() -> None:
    text = "The trees arrived yesterday in the garden. Volunteers will begin to plant them on Monday morning."
    found = cues(Transcript((Segment(0, 9, text, speaker="Speaker 1"),)))
    assert found[0].lines[-1].endswith("garden.") and found[1].lines[0].startswith("Volunteers")


def test_text_without_blanks_is_cut_after_its_punctuation() -> None:
    found = cues(Transcript((Segment(0, 30, JAPANESE, speaker="Speaker 1"),)))
    assert len(found) >= 5 and found[0].lines[-1].endswith("。")
    assert not any(line.startswith(("。", "ー")) for cue in found for line in cue.lines)


def test_text_without_times_shares_its_time_by_width() -> None:
    found = cues(Transcript((Segment(10, 40, " ".join(["word"] * 100), speaker="Speaker 1"),)))
    lengths_ms = [cue.end_ms - cue.start_ms for cue in found]
    assert found[0].start_ms == 10_000 and found[-1].end_ms == 40_000 and sum(lengths_ms) == 30_000


def test_a_word_without_times_lies_between_its_neighbours() -> None:
    words = (Word(" Room", 1.0, 1.5), Word(" 42", None, None), Word(" please.", 9.0, 9.5))
    found = cues(Transcript((Segment(1.0, 9.5, "Room 42 please.", words, "Speaker 1"),)))
    assert [(cue.start_ms, cue.end_ms) for cue in found] == [(1000, 1500), (1500, 8500), (9000, 9500)]


def test_words_that_are_not_the_text_give_no_times() -> None:
    found = cues(Transcript((Segment(2, 4, "edited", (Word(" heard", 3, 3.5),), "Speaker 1"),)))
    assert [(cue.start_ms, cue.end_ms, cue.lines) for cue in found] == [(2000, 4000, ("edited",))]


def test_a_name_longer_than_a_line_is_shortened() -> None:
    [cue] = cues(Transcript((Segment(0, 1, "Yes.", speaker="Ada " * 30),)))
    assert cue.label.endswith("…:") and cell_len(cue.label) <= 42 and cue.lines == ("", "Yes.")
