"""Words lie where somebody speaks; a text where nobody does is dropped."""

from __future__ import annotations

from backend.domain.transcript import Word
from backend.engines.whisper.decoding import Heard, HeardText
from backend.engines.whisper.rounds import HeardWindow
from backend.engines.whisper.windows import Speech, Window
from backend.engines.whisper.words import segments_of, settled


def words(*placed: tuple[str, float, float]) -> list[Word]:
    return [Word(f" {text}", start_s, end_s, 0.9) for text, start_s, end_s in placed]


def test_words_where_speech_is_stay_as_they_are() -> None:
    said = words(("Good", 1.0, 1.3), ("morning.", 1.3, 1.8))
    assert settled(said, Speech([(1.0, 2.0)])) == said


def test_a_text_far_from_all_speech_is_dropped() -> None:
    assert settled(words(("Thank", 10.0, 10.2), ("you.", 10.2, 10.4)), Speech([(1.0, 2.0)])) == []


def test_a_first_word_at_a_stray_sound_joins_its_sentence() -> None:
    hello, there = settled(words(("Hello", 0.2, 0.5), ("there.", 61.3, 61.8)), Speech([(61.0, 62.0)]))
    assert (hello.start_s, hello.end_s) == (61.0, 61.3)
    assert there.start_s == 61.3


def test_a_stray_sound_that_passes_for_speech_keeps_no_word_from_its_sentence() -> None:
    speech = Speech([(0.3, 0.5), (11.0, 12.0)])
    hello, there = settled(words(("Hello", 0.2, 0.5), ("there.", 11.3, 11.8)), speech)
    assert (round(hello.start_s or 0.0, 2), hello.end_s) == (11.0, 11.3)
    assert there.start_s == 11.3


def test_a_short_word_by_itself_stays() -> None:
    said = words(("Yes.", 0.2, 0.5))
    assert settled(said, Speech([(0.3, 0.5)])) == said


def test_a_word_that_spans_a_silence_keeps_the_part_beside_the_rest() -> None:
    first, _ = settled(words(("Hello", 0.2, 61.3), ("there.", 61.3, 61.8)), Speech([(0.0, 0.4), (61.0, 62.0)]))
    assert (first.start_s, first.end_s) == (61.0, 61.3)


def test_a_last_word_that_runs_into_silence_ends_with_its_speech() -> None:
    _, last = settled(words(("Hello", 1.0, 1.3), ("there.", 1.3, 9.0)), Speech([(1.0, 1.9)]))
    assert (last.start_s, last.end_s) == (1.3, 1.9)


def segments(heard: list[HeardWindow], speech: Speech, duration_s: float) -> list[tuple[float, float, str]]:
    return [(s.start_s, s.end_s, s.text) for s in segments_of(heard, speech, duration_s)]


def test_times_are_of_the_recording_and_inside_it() -> None:
    text = HeardText(0.0, 3.0, "So it is.", tuple(words(("So", 0.5, 0.8), ("it", 0.8, 1.0), ("is.", 1.0, 2.9))))
    heard = HeardWindow(Window(20.0, 22.5), Heard((text,), 2.5, 0.0, -0.2, ended=True))
    assert segments([heard], Speech([(20.4, 22.5)]), 22.5) == [(20.5, 22.5, "So it is.")]


def test_a_pause_parts_segments() -> None:
    text = HeardText(0.0, 5.0, "Yes. No.", tuple(words(("Yes.", 0.5, 0.8), ("No.", 3.0, 3.2))))
    heard = HeardWindow(Window(0.0, 5.0), Heard((text,), 5.0, 0.0, -0.2, ended=True))
    assert segments([heard], Speech([(0.5, 3.2)]), 5.0) == [(0.5, 0.8, "Yes."), (3.0, 3.2, "No.")]


def test_a_text_without_word_times_keeps_its_own() -> None:
    heard = HeardWindow(Window(10.0, 15.0), Heard((HeardText(0.0, 5.0, "Yes.", ()),), 5.0, 0.0, -0.2, ended=True))
    assert segments([heard], Speech([(11.0, 14.0)]), 15.0) == [(10.0, 15.0, "Yes.")]
    assert segments([heard], Speech([(30.0, 31.0)]), 40.0) == []
