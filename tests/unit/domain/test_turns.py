"""Speaker turns: full spans, and voices heeded over segmentation."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.transcript import SpeakerTurn
from backend.domain.turns import full_spans, heed_voices


def test_a_piece_gets_back_what_overlap_took_from_its_turn() -> None:
    turns = [SpeakerTurn(0, 5, "a"), SpeakerTurn(4, 8, "b")]
    pieces = [SpeakerTurn(0, 4.5, "a"), SpeakerTurn(4.5, 8, "b")]
    assert full_spans(pieces, turns) == [(0, 5), (4, 8)]


def test_two_pieces_of_one_turn_do_not_cover_the_same_time() -> None:
    turns = [SpeakerTurn(0, 10, "a"), SpeakerTurn(4, 5, "b")]
    pieces = [SpeakerTurn(0, 4, "a"), SpeakerTurn(4, 5, "b"), SpeakerTurn(5, 10, "a")]
    assert full_spans(pieces, turns) == [(0, 5), (4, 5), (5, 10)]


def test_without_turns_pieces_stay_as_they_are() -> None:
    assert full_spans([SpeakerTurn(1, 2, "a")], ()) == [(1, 2)]


@st.composite
def talk(draw: st.DrawFn) -> tuple[list[SpeakerTurn], list[SpeakerTurn]]:
    """Turns of three people, each person's apart from each other; and an exclusive view cut out of them."""
    turns = []
    for speaker in "abc":
        edges = sorted(draw(st.lists(st.integers(0, 100), max_size=8, unique=True)))
        turns += [SpeakerTurn(a, b, speaker) for a, b in zip(edges[::2], edges[1::2], strict=False)]
    turns.sort(key=lambda turn: turn.start_s)
    pieces: list[SpeakerTurn] = []
    for second in range(100):
        talking = [turn.speaker for turn in turns if turn.start_s <= second < turn.end_s]
        if not talking:
            continue
        if pieces and pieces[-1].end_s == second and pieces[-1].speaker in talking and draw(st.booleans()):
            pieces[-1] = SpeakerTurn(pieces[-1].start_s, second + 1, pieces[-1].speaker)
        else:
            pieces.append(SpeakerTurn(second, second + 1, draw(st.sampled_from(talking))))
    return pieces, turns


@given(talk())
def test_spans_cover_their_pieces_and_never_the_same_time_of_one_speaker(
    pair: tuple[list[SpeakerTurn], list[SpeakerTurn]],
) -> None:
    pieces, turns = pair
    spans = full_spans(pieces, turns)
    for piece, (start_s, end_s) in zip(pieces, spans, strict=True):
        assert start_s <= piece.start_s and end_s >= piece.end_s
    for speaker in "abc":
        theirs = sorted(span for piece, span in zip(pieces, spans, strict=True) if piece.speaker == speaker)
        assert all(before[1] <= after[0] for before, after in pairwise(theirs))


FRAMES = np.arange(5, 100, 10)


SPEAKERS = np.zeros((100, 2), dtype=bool)


SPEAKERS[:, 0] = True


SCORES = SPEAKERS.astype(np.float32)


def fit(*cosines: tuple[int, int, float, float]) -> np.ndarray:
    """(10, 2): speaker 0 fits everywhere, but for glimpses `first` to `last` as given."""
    found = np.tile(np.array([[0.8, 0.1]], dtype=np.float32), (10, 1))
    for first, last, zero, one in cosines:
        found[first : last + 1] = zero, one
    return found


def test_a_stretch_goes_to_the_speaker_whose_voice_it_has() -> None:
    active, scores = heed_voices(SPEAKERS, SCORES, FRAMES, fit((3, 6, 0.1, 0.8)), 0.25)
    assert active[:30, 0].all() and active[30:70, 1].all() and active[70:, 0].all()
    assert not (active[:, 0] & active[:, 1]).any() and (scores[40] == (0, 1)).all()


def test_a_voice_that_fits_only_a_little_better_changes_nothing() -> None:
    active, _ = heed_voices(SPEAKERS, SCORES, FRAMES, fit((3, 6, 0.4, 0.6)), 0.25)
    assert (active == SPEAKERS).all()


def test_one_odd_glimpse_is_not_enough() -> None:
    active, _ = heed_voices(SPEAKERS, SCORES, FRAMES, fit((4, 4, 0.1, 0.9)), 0.25)
    assert (active == SPEAKERS).all()


def test_a_short_stretch_with_one_glimpse_is_decided_by_it() -> None:
    short = np.zeros_like(SPEAKERS)
    short[42:52, 0] = True
    active, _ = heed_voices(short, short.astype(np.float32), FRAMES, fit((4, 4, 0.1, 0.9)), 0.25)
    assert active[42:52, 1].all() and not active[:, 0].any()


def test_overlapped_speech_is_left_alone() -> None:
    both = np.ones_like(SPEAKERS)
    active, _ = heed_voices(both, both.astype(np.float32), FRAMES, fit((0, 9, 0.1, 0.9)), 0.25)
    assert (active == both).all()


def test_what_was_given_is_not_changed() -> None:
    before = SPEAKERS.copy()
    heed_voices(SPEAKERS, SCORES, FRAMES, fit((3, 6, 0.1, 0.8)), 0.25)
    assert np.array_equal(before, SPEAKERS)
