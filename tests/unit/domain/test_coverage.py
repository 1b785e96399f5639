"""Speech without words is found, and words without speech are dropped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.coverage import (
    coverage_of,
    find_gaps,
    speech_spans,
    together,
    united,
    with_found,
    without,
    without_invented,
)
from backend.domain.evidence import FRAME_S, SpeechEvidence
from backend.domain.transcript import Coverage, Diarization, Segment, SpeakerTurn, Transcription, Word

Span = tuple[float, float]

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)).map(lambda pair: (float(pair[0]), float(sum(pair)))))


def evidence(*speech: Span, duration_s: float = 60.0, elsewhere: float = 0.0) -> SpeechEvidence:
    at_s = np.arange(round(duration_s / FRAME_S)) * FRAME_S
    inside = np.zeros(len(at_s), dtype=bool)
    for start_s, end_s in speech:
        inside |= (at_s >= start_s) & (at_s < end_s)
    return SpeechEvidence(np.where(inside, 0.95, elsewhere).astype(np.float32))


def spoken(*turns: Span) -> Diarization:
    own = tuple(SpeakerTurn(start_s, end_s, "a") for start_s, end_s in turns)
    return Diarization(own, own)


def segment(*words: tuple[str, float, float], probability: float = 0.9) -> Segment:
    own = tuple(Word(f" {text}", start_s, end_s, probability) for text, start_s, end_s in words)
    return Segment(words[0][1], words[-1][2], " ".join(text for text, _, _ in words), own)


def said(*segments: Segment) -> Transcription:
    return Transcription(segments, "en")


def words_from(start_s: float, end_s: float) -> Segment:
    """A word every half second."""
    instants = np.arange(start_s, end_s, 0.5)
    return segment(*((f"w{number}", float(at_s), float(at_s) + 0.4) for number, at_s in enumerate(instants)))


def texts(transcription: Transcription) -> list[str]:
    return [own.text for own in transcription.segments]


def rounded(found: Sequence[Span]) -> list[Span]:
    return [(round(start_s, 1), round(end_s, 1)) for start_s, end_s in found]


@given(spans, spans)
def test_what_is_left_of_spans_is_what_the_others_do_not_have(some: list[Span], others: list[Span]) -> None:
    left = without(united(some), united(others))
    for at_s in np.arange(0.5, 72):
        inside = [any(start_s < at_s < end_s for start_s, end_s in group) for group in (left, some, others)]
        assert inside[0] == (inside[1] and not inside[2])


def test_a_sentence_that_is_left_out_is_a_gap() -> None:
    heard = evidence((0, 20))
    gaps = find_gaps(said(words_from(0, 8), words_from(14, 20)), [(0.0, 20.0)], heard)
    assert rounded(gaps) == [(8.3, 13.6)]


def test_a_word_drawn_over_a_hole_does_not_hide_it() -> None:
    gaps = find_gaps(said(segment(("So", 0.0, 9.0), ("then.", 9.0, 9.5))), [(0.0, 9.5)], evidence((0, 9.5)))
    assert rounded(gaps) == [(1.6, 8.6)]


def test_a_segment_without_word_times_covers_all_of_itself() -> None:
    assert find_gaps(said(Segment(0.0, 20.0, "So then.")), [(0.0, 20.0)], evidence((0, 20))) == []


@pytest.mark.parametrize("speech", [[(5.0, 5.7)], [(5.0, 9.0)]], ids=["short", "a sound that is no speech"])
def test_hesitations_and_other_sounds_are_no_gaps(speech: list[Span]) -> None:
    assert find_gaps(said(), speech, evidence((5.0, 5.7))) == []


def test_turns_in_which_nothing_sounds_like_speech_are_none() -> None:
    assert speech_spans(spoken((0, 5), (8, 10)), evidence((8, 9))) == [(8, 10)]


def test_without_a_diarization_the_evidence_says_where_speech_is() -> None:
    assert rounded(speech_spans(None, evidence((8, 9)))) == [(8.0, 9.0)]


def test_coverage_says_how_many_seconds_and_where() -> None:
    assert coverage_of([(0, 10), (12, 15)], [(2, 4.5)]) == Coverage(13, 2.5, ((2, 4.5),))


def test_the_coverage_of_tracks_adds_up() -> None:
    parts = [Coverage(10, 2, ((5, 7),)), Coverage(8, 1, ((1, 2),))]
    assert together(parts) == Coverage(18, 3, ((1, 2), (5, 7)))


def test_a_text_where_nobody_speaks_is_dropped() -> None:
    heard = said(segment(("Hello.", 1, 1.4)), segment(("Thank", 30, 30.2), ("you.", 30.2, 30.5)))
    assert texts(without_invented(heard, None, evidence((1, 2)))) == ["Hello."]


def test_a_transcription_without_words_has_no_language() -> None:
    assert without_invented(said(segment(("You", 1, 2))), None, evidence()) == Transcription()


def test_a_stray_word_where_the_diarization_hears_nobody_is_dropped() -> None:
    heard = said(segment(("And", 20.0, 20.3), ("so", 30.1, 30.4), ("on.", 30.5, 30.9)))
    faint = evidence((30, 31), elsewhere=0.3)
    assert texts(without_invented(heard, spoken((30, 31)), faint)) == ["so on."]


def test_an_unlikely_stray_word_is_dropped_even_beside_a_sound_like_speech() -> None:
    heard = said(segment(("Hm", 20.0, 21.0), probability=0.02), segment(("so", 30.1, 30.4)))
    assert texts(without_invented(heard, spoken((30, 31)), evidence((20, 21), (30, 31)))) == ["so"]


def test_a_word_that_the_diarization_missed_stays_where_speech_is() -> None:
    heard = said(segment(("Yes.", 20.0, 20.5)), segment(("so", 30.1, 30.4)))
    assert texts(without_invented(heard, spoken((30, 31)), evidence((20, 20.5), (30, 31)))) == ["Yes.", "so"]


def test_of_what_is_found_only_words_inside_the_gap_are_new() -> None:
    found = segment(("before", 1.0, 1.8), ("new", 2.2, 2.6), ("ones", 2.7, 3.1), ("after", 4.3, 4.8))
    heard = with_found(said(words_from(0, 2), words_from(4, 6)), (2.0, 4.0), [found])
    assert texts(heard)[1] == "new ones"
    assert [own.start_s for own in heard.segments] == sorted(own.start_s for own in heard.segments)


def test_a_segment_without_word_times_is_new_only_if_the_gap_holds_all_of_it() -> None:
    assert texts(with_found(said(), (2.0, 4.0), [Segment(1.7, 4.3, "So then.")])) == ["So then."]
    assert texts(with_found(said(), (2.0, 4.0), [Segment(0.0, 8.0, "So then.")])) == []
