"""Attribution: nothing lost, nothing doubled, the right speaker."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.attribution import TurnLookup, attribute, merge_turns, speaker_stats
from backend.domain.transcript import Diarization, Segment, SpeakerTurn, Transcription, Word

TURNS = (SpeakerTurn(0, 2, "b"), SpeakerTurn(2, 4, "a"), SpeakerTurn(6, 8, "b"))
DIARIZATION = Diarization(TURNS, TURNS)


def words(*timed: tuple[str, float | None, float | None]) -> tuple[Word, ...]:
    return tuple(Word(text, start, end) for text, start, end in timed)


def segment(*timed: tuple[str, float | None, float | None]) -> Segment:
    starts = [start for _, start, _ in timed if start is not None]
    ends = [end for _, _, end in timed if end is not None]
    text = "".join(text for text, _, _ in timed).strip()
    return Segment(min(starts, default=0.0), max(ends, default=1.0), text, words(*timed))


def test_speakers_are_numbered_by_first_appearance() -> None:
    heard = Transcription((segment((" b", 0.5, 1)), segment((" a", 2.5, 3)), segment((" b", 6.5, 7))))
    transcript, labels = attribute(heard, DIARIZATION)
    assert [piece.speaker for piece in transcript.segments] == ["Speaker 1", "Speaker 2", "Speaker 1"]
    assert labels == {"b": "Speaker 1", "a": "Speaker 2"}


def test_a_segment_is_split_where_the_speaker_changes() -> None:
    heard = Transcription((segment((" Good", 1.0, 1.4), (" morning.", 1.5, 1.9), (" Hello.", 2.2, 2.8)),))
    transcript, _ = attribute(heard, DIARIZATION)
    assert [(piece.text, piece.speaker, piece.start_s, piece.end_s) for piece in transcript.segments] == [
        ("Good morning.", "Speaker 1", 0, 2),
        ("Hello.", "Speaker 2", 2, 2.8),
    ]


def test_a_word_without_times_takes_the_speaker_before_it() -> None:
    heard = Transcription((segment((" Room", 1.0, 1.4), (" 42", None, None), (" please", 2.5, 2.8)),))
    transcript, _ = attribute(heard, DIARIZATION)
    assert [piece.text for piece in transcript.segments] == ["Room 42", "please"]


def test_a_leading_word_without_times_takes_the_speaker_after_it() -> None:
    heard = Transcription((segment((" 42", None, None), (" please", 2.5, 2.8)),))
    transcript, _ = attribute(heard, Diarization(TURNS, TURNS))
    assert [piece.text for piece in transcript.segments] == ["42 please"]


def test_a_word_in_a_pause_goes_to_the_nearest_turn() -> None:
    lookup = TurnLookup(TURNS)
    assert lookup.speaker(4.1, 4.4) == "a"
    assert lookup.speaker(5.6, 5.9) == "b"
    assert lookup.speaker(20, 21) == "b"


def test_a_word_across_two_turns_goes_to_the_longer_overlap() -> None:
    assert TurnLookup(TURNS).speaker(1.5, 2.2) == "b"
    assert TurnLookup(TURNS).speaker(1.9, 3.0) == "a"


def test_how_far_a_word_is_outside_of_a_speakers_turns() -> None:
    lookup = TurnLookup(TURNS, (SpeakerTurn(0, 2, "b"), SpeakerTurn(1.5, 4, "a"), SpeakerTurn(6, 8, "b")))
    assert lookup.away_s(Word("w", 1.6, 1.8), "a") == 0
    assert lookup.away_s(Word("w", 2.3, 2.5), "b") == pytest.approx(0.4)
    assert lookup.away_s(Word("w", 5.5, 5.7), "b") == pytest.approx(0.4)
    assert lookup.away_s(Word("w"), "b") == 0


def test_a_sentence_that_the_engine_cut_in_two_is_one_segment() -> None:
    heard = Transcription((segment((" I", 1.0, 1.2), (" will", 1.3, 1.5)), segment((" drive.", 1.6, 1.9))))
    transcript, _ = attribute(heard, DIARIZATION)
    assert [(piece.text, piece.start_s, piece.end_s) for piece in transcript.segments] == [("I will drive.", 0, 2)]


def test_two_sentences_of_the_engine_stay_two_segments() -> None:
    heard = Transcription((segment((" I", 1.0, 1.2), (" will.", 1.3, 1.5)), segment((" Good.", 1.6, 1.9))))
    assert len(attribute(heard, DIARIZATION)[0].segments) == 2


def test_a_sentence_across_a_long_pause_is_two_segments() -> None:
    turns = (SpeakerTurn(0, 9, "a"),)
    heard = Transcription((segment((" I", 1.0, 1.2)), segment((" will.", 2.3, 2.5))))
    assert len(attribute(heard, Diarization(turns, turns))[0].segments) == 2


def test_where_two_talk_at_once_each_gets_the_words_of_their_sentence_once() -> None:
    turns = (SpeakerTurn(0, 2.4, "tom"), SpeakerTurn(1.9, 5, "ewan"))
    exclusive = (SpeakerTurn(0, 2.4, "tom"), SpeakerTurn(2.4, 5, "ewan"))
    heard = Transcription(
        (
            segment((" Nothing", 0.1, 0.5), (" else", 0.6, 0.9), (" goes", 1.0, 1.4), (" wrong.", 1.5, 1.9)),
            segment((" I", 2.0, 2.1), (" will", 2.15, 2.35), (" drive", 2.45, 2.8), (" there", 2.9, 3.1)),
            segment((" and", 3.2, 3.3), (" collect", 3.4, 3.8), (" them.", 3.9, 4.2)),
        )
    )
    transcript, _ = attribute(heard, Diarization(turns, exclusive))
    assert [(piece.speaker, piece.text) for piece in transcript.segments] == [
        ("Speaker 1", "Nothing else goes wrong."),
        ("Speaker 2", "I will drive there and collect them."),
    ]


def test_a_segment_reaches_to_the_edges_of_its_turn_where_its_words_come_near() -> None:
    turns = (SpeakerTurn(0, 4, "a"), SpeakerTurn(5, 9, "b"))
    heard = Transcription((segment((" One.", 0.4, 3.5)), segment((" Two.", 6.5, 8.9))))
    transcript, _ = attribute(heard, Diarization(turns, turns))
    assert [(piece.start_s, piece.end_s) for piece in transcript.segments] == [(0, 4), (6.5, 9)]
    assert transcript.segments[0].words[0].start_s == 0.4


def test_segments_of_one_speaker_do_not_come_to_overlap() -> None:
    turns = (SpeakerTurn(0, 4, "a"),)
    heard = Transcription((segment((" One.", 0.4, 1.5)), segment((" Two.", 1.9, 3.2))))
    transcript, _ = attribute(heard, Diarization(turns, turns))
    assert [(piece.start_s, piece.end_s) for piece in transcript.segments] == [(0, 1.5), (1.9, 4)]


def test_without_diarization_everything_is_one_speakers() -> None:
    transcript, _ = attribute(Transcription((segment((" one", 0, 1)), segment((" two", 5, 6)))), None)
    assert transcript.speakers == ("Speaker 1",)


def test_a_segment_without_words_goes_to_whoever_talks_most_during_it() -> None:
    transcript, labels = attribute(Transcription((Segment(1.5, 4.0, "text"),)), DIARIZATION)
    assert labels == {"a": "Speaker 1"}
    assert transcript.segments[0].text == "text"


def test_a_segment_that_has_a_speaker_keeps_it() -> None:
    heard = Transcription((Segment(0, 2, "mine", speaker="a"),))
    assert attribute(heard, DIARIZATION)[1] == {"a": "Speaker 1"}


def test_silence_has_no_speakers() -> None:
    transcript, labels = attribute(Transcription(), Diarization())
    assert transcript.segments == () and transcript.speakers == () and labels == {}


def test_speaking_time_counts_overlapping_turns_for_both() -> None:
    turns = (SpeakerTurn(0, 3, "x"), SpeakerTurn(2, 4, "y"))
    exclusive = (SpeakerTurn(0, 2, "x"), SpeakerTurn(2, 4, "y"))
    diarization = Diarization(turns, exclusive)
    transcript, labels = attribute(Transcription((Segment(0, 2, "a b"), Segment(2, 4, "c"))), diarization)
    stats = speaker_stats(transcript, diarization, labels)
    assert stats["Speaker 1"].speaking_time_s == 3 and stats["Speaker 2"].speaking_time_s == 2
    assert stats["Speaker 1"].share == 0.6 and stats["Speaker 1"].word_count == 2


def test_words_of_a_language_without_blanks_are_counted() -> None:
    heard = Transcription((segment(("図書", 0, 1), ("館", 1, 2), ("の", 2, 3), ("庭。", 3, 4)),))
    transcript, labels = attribute(heard, None)
    assert speaker_stats(transcript, None, labels)["Speaker 1"].word_count == 4


def test_merging_bridges_short_pauses_of_one_speaker_only() -> None:
    turns = [SpeakerTurn(0, 1, "a"), SpeakerTurn(1.5, 2, "a"), SpeakerTurn(2.1, 3, "b"), SpeakerTurn(3.2, 4, "a")]
    assert merge_turns(turns, max_gap_s=1, max_length_s=30) == [
        SpeakerTurn(0, 2, "a"),
        SpeakerTurn(2.1, 3, "b"),
        SpeakerTurn(3.2, 4, "a"),
    ]


def test_merging_stops_at_the_longest_turn() -> None:
    turns = [SpeakerTurn(0, 6, "a"), SpeakerTurn(6.1, 12, "a")]
    assert merge_turns(turns, max_gap_s=1, max_length_s=10) == turns


times = st.floats(0, 100, allow_nan=False)


@st.composite
def exclusive_turns(draw: st.DrawFn) -> tuple[SpeakerTurn, ...]:
    edges = sorted(draw(st.lists(times, min_size=0, max_size=12, unique=True)))
    speakers = draw(st.lists(st.sampled_from("abc"), min_size=len(edges), max_size=len(edges)))
    return tuple(
        SpeakerTurn(start, end, speaker) for start, end, speaker in zip(edges[::2], edges[1::2], speakers, strict=False)
    )


@st.composite
def heard_segments(draw: st.DrawFn) -> tuple[Segment, ...]:
    segments = []
    for number in range(draw(st.integers(0, 5))):
        timed: list[tuple[str, float | None, float | None]] = []
        for position in range(draw(st.integers(0, 6))):
            start = draw(st.none() | times)
            length = draw(st.floats(0, 3))
            timed.append((f" w{number}.{position}", start, None if start is None else start + length))
        start_s = draw(times)
        segments.append(Segment(start_s, start_s + 5, "".join(t for t, _, _ in timed).strip() or "text", words(*timed)))
    return tuple(segments)


@given(heard_segments(), exclusive_turns(), st.booleans())
def test_no_word_is_lost_or_doubled_and_every_segment_has_a_speaker(
    segments: tuple[Segment, ...], turns: tuple[SpeakerTurn, ...], diarized: bool
) -> None:
    transcript, _ = attribute(Transcription(segments), Diarization(turns, turns) if diarized else None)
    came_out = sorted(word.text for piece in transcript.segments for word in piece.words)
    went_in = sorted(word.text for item in segments for word in item.words)
    assert came_out == went_in
    assert sorted(" ".join(p.text for p in transcript.segments).split()) == sorted(
        " ".join(s.text for s in segments).split()
    )
    assert all(piece.speaker for piece in transcript.segments)
    assert list(transcript.speakers) == [f"Speaker {n + 1}" for n in range(len(transcript.speakers))]
    starts = [piece.start_s for piece in transcript.segments]
    assert starts == sorted(starts) and all(piece.end_s >= piece.start_s for piece in transcript.segments)
