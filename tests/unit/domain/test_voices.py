"""Voices against prints: who is named, and above all who is not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.transcript import Segment, Transcript
from backend.domain.voices import MARGIN, MAX_NAME, THRESHOLD, Voice, person_name, recognise, resembling, show_names
from backend.errors import InvalidInput

ANNA: Voice = (1.0, 0.0, 0.0, 0.0)
BEN: Voice = (0.0, 1.0, 0.0, 0.0)
NOBODY: Voice = (0.0, 0.0, 0.0, 1.0)


def like(similarity: float, person: Voice = ANNA) -> Voice:
    """A voice with this cosine similarity to a person, and none to anybody else."""
    return (similarity * person[0], similarity * person[1], math.sqrt(1 - similarity**2), 0.0)


def test_a_known_voice_is_named_and_another_is_not() -> None:
    voices = {"Speaker 1": like(0.9), "Speaker 2": NOBODY, "Speaker 3": like(0.8, BEN)}
    assert recognise(voices, {"anna": [ANNA], "ben": [BEN]}) == {"Speaker 1": "anna", "Speaker 3": "ben"}


@pytest.mark.parametrize(("similarity", "named"), [(THRESHOLD + 0.01, True), (THRESHOLD - 0.01, False)])
def test_the_threshold_decides(similarity: float, named: bool) -> None:
    assert bool(recognise({"Speaker 1": like(similarity)}, {"anna": [ANNA]})) is named


@pytest.mark.parametrize(("gap", "named"), [(MARGIN + 0.02, True), (MARGIN - 0.02, False), (0.0, False)])
def test_nobody_is_named_when_the_runner_up_is_near(gap: float, named: bool) -> None:
    anna, ben = 0.7, 0.7 - gap
    voice = (anna, ben, math.sqrt(max(0.0, 1 - anna**2 - ben**2)), 0.0)
    assert recognise({"Speaker 1": voice}, {"anna": [ANNA], "ben": [BEN]}) == ({"Speaker 1": "anna"} if named else {})


def test_a_person_is_only_one_speaker_of_a_recording() -> None:
    voices = {"Speaker 1": like(0.8), "Speaker 2": like(0.95), "Speaker 3": like(0.7)}
    assert recognise(voices, {"anna": [ANNA]}) == {"Speaker 2": "anna"}


def test_speakers_that_sound_exactly_alike_are_settled_by_their_order() -> None:
    voices = {"Speaker 1": like(0.8), "Speaker 2": like(0.8)}
    assert recognise(voices, {"anna": [ANNA]}) == {"Speaker 1": "anna"}


def test_several_prints_count_as_their_mean() -> None:
    prints = {"anna": [like(0.6), (0.6, 0.0, -0.8, 0.0)]}  # the mean is exactly ANNA
    assert recognise({"Speaker 1": like(0.55)}, prints) == {"Speaker 1": "anna"}
    assert recognise({"Speaker 1": (0.55, 0.0, 0.0, 0.83)}, {"anna": prints["anna"][:1]}) == {}


def test_prints_that_are_not_normalised_count_like_any_other() -> None:
    assert recognise({"Speaker 1": (0.03, 0.0, 0.0, 0.0)}, {"anna": [(50.0, 0.0, 0.0, 0.0)]}) == {"Speaker 1": "anna"}


@pytest.mark.parametrize(
    ("voices", "people"),
    [
        ({}, {"anna": [ANNA]}),
        ({"Speaker 1": ANNA}, {}),
        ({"Speaker 1": ANNA}, {"anna": []}),
        ({"Speaker 1": ANNA}, {"anna": [(1.0, 0.0)]}),  # a print of another model
        ({"Speaker 1": (0.0,) * 4}, {"anna": [ANNA]}),
        ({"Speaker 1": (math.nan,) * 4}, {"anna": [ANNA]}),
        ({"Speaker 1": ANNA}, {"anna": [(0.0,) * 4]}),
        ({"Speaker 1": ()}, {"anna": [()]}),
    ],
)
def test_without_anything_to_compare_nobody_is_named(voices: dict[str, Voice], people: dict[str, list[Voice]]) -> None:
    assert recognise(voices, people) == {}


vectors = st.tuples(*[st.floats(-1, 1, width=32)] * 4)


@given(
    st.dictionaries(st.sampled_from(["Speaker 1", "Speaker 2", "Speaker 3"]), vectors),
    st.dictionaries(st.sampled_from(["anna", "ben", "cleo"]), st.lists(vectors, max_size=3)),
)
def test_naming_is_one_to_one_and_deterministic(voices: dict[str, Voice], people: dict[str, list[Voice]]) -> None:
    named = recognise(voices, people)
    assert named == recognise(dict(voices), dict(people))
    assert named.keys() <= voices.keys() and len(set(named.values())) == len(named)


def test_forgetting_finds_voices_near_any_print_or_their_mean() -> None:
    other = (0.0, 0.0, 1.0, 0.0)
    voices = {1: ANNA, 2: like(0.9), 3: NOBODY, 4: BEN, 5: (1.0, 0.0), 6: other}
    assert resembling(voices, [ANNA]) == [1, 2]
    assert set(resembling(voices, [ANNA, other])) == {1, 2, 6}
    assert resembling(voices, []) == [] and resembling({}, [ANNA]) == []


def test_names_take_the_place_of_labels() -> None:
    segments = (Segment(0, 1, "Hello.", speaker="Speaker 1"), Segment(1, 2, "Hi.", speaker="Speaker 2"))
    shown = show_names(Transcript(segments, "en"), {"Speaker 2": "Anna"})
    assert shown.speakers == ("Speaker 1", "Anna") and shown.language == "en"


@pytest.mark.parametrize(
    ("text", "name"),
    [("  Ada   Byron ", "Ada Byron"), ("Zoe\u0308", "Zoë"), ("O'Neill, J. & Co", "O'Neill, J. & Co"), ("李雷", "李雷")],
)
def test_names_are_tidied(text: str, name: str) -> None:
    assert person_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \t ",
        "x" * (MAX_NAME + 1),
        "a\0b",
        "<b>",
        "x --> y",
        "Speaker 2",
        "speaker12",
        "Unknown",
        "\ud800",
        "A\u202eb",
    ],
)
def test_names_that_would_break_or_confuse_a_transcript_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        person_name(text)
