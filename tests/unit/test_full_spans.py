"""When a speaker of an exclusive piece really talks."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from backend.domain.transcript import SpeakerTurn
from backend.domain.turns import full_spans


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
