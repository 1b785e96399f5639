"""Windows hold all speech, end in pauses and are never longer than Whisper hears."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from backend.engines.whisper.windows import PADDING_S, WINDOW_S, Speech, Window, cut_windows, rest_of

DURATION_S = 4_000.0


def middle(start_s: float, end_s: float) -> float:
    return (start_s + end_s) / 2


@st.composite
def speeches(draw: st.DrawFn) -> list[tuple[float, float]]:
    lengths = draw(st.lists(st.tuples(st.floats(0.05, 20), st.floats(0.1, 90)), max_size=25))
    spans, at_s = [], 0.0
    for pause_s, length_s in lengths:
        spans.append((at_s + pause_s, at_s + pause_s + length_s))
        at_s = spans[-1][1]
    return spans


@given(speeches())
def test_all_speech_is_in_windows_that_do_not_overlap(speech: list[tuple[float, float]]) -> None:
    windows = cut_windows(speech, middle, DURATION_S)
    assert all(before.end_s <= after.start_s + 1e-9 for before, after in pairwise(windows))
    heard = Speech([(window.start_s, window.end_s) for window in windows])
    for start_s, end_s in speech:
        assert abs(heard.seconds(start_s, end_s) - (end_s - start_s)) < 1e-6


@given(speeches())
def test_no_window_is_longer_than_whisper_hears(speech: list[tuple[float, float]]) -> None:
    assert all(0 < w.duration_s <= WINDOW_S + 2 * PADDING_S + 1e-9 for w in cut_windows(speech, middle, DURATION_S))


def test_a_window_ends_at_the_longest_pause_once_it_is_full_enough() -> None:
    speech = [(0.0, 8.0), (9.0, 21.0), (23.0, 24.0), (24.3, 27.0), (27.5, 40.0)]
    assert [round(window.end_s, 2) for window in cut_windows(speech, middle, 60.0)] == [21.4, 40.4]


def test_silence_within_a_window_stays() -> None:
    assert cut_windows([(1.0, 2.0), (12.0, 13.0)], middle, 60.0) == [Window(0.6, 13.4)]


def test_without_speech_there_is_no_window() -> None:
    assert cut_windows([], middle, 60.0) == []


def test_what_a_window_leaves_begins_before_the_next_speech() -> None:
    speech = Speech([(0.0, 5.0), (8.0, 12.0)])
    assert rest_of(Window(0.0, 12.0), 5.0, speech, 0.8) == Window(7.6, 12.0)


def test_a_short_rest_is_not_decoded_again() -> None:
    assert rest_of(Window(0.0, 12.0), 11.5, Speech([(0.0, 12.0)]), 0.8) is None
