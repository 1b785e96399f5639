"""Speaker turns: voices heeded over segmentation."""

from __future__ import annotations

import numpy as np

from backend.domain.turns import heed_voices

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
