"""The polarities with which channels are mixed."""

from __future__ import annotations

import numpy as np
import pytest

from backend.engines.audio.decoding.mixing import choose_signs

SOUNDS = np.random.default_rng(1).normal(0, 0.1, (4, 400))


def products(*channels: np.ndarray) -> list[list[float]]:
    stacked = np.stack(channels)
    return (stacked @ stacked.T).tolist()


def test_channels_of_the_same_polarity_stay_as_they_are() -> None:
    assert choose_signs(products(SOUNDS[0], 0.5 * SOUNDS[0])) == (1, 1)


def test_different_voices_stay_as_they_are() -> None:
    assert choose_signs(products(*SOUNDS)) == (1, 1, 1, 1)


@pytest.mark.parametrize("gain", [-1.0, -0.6, -1.6])
def test_an_inverted_channel_is_turned_round(gain: float) -> None:
    signs = choose_signs(products(SOUNDS[0], gain * SOUNDS[0]))
    assert signs[0] * signs[1] == -1


def test_two_of_four_inverted_channels_are_turned_round() -> None:
    signs = choose_signs(products(SOUNDS[0], SOUNDS[0], -SOUNDS[0], -SOUNDS[0]))
    assert signs[0] == signs[1] == -signs[2] == -signs[3]


def test_silence_keeps_what_was_chosen() -> None:
    assert choose_signs(products(np.zeros(400), np.zeros(400)), (1, -1)) == (1, -1)


def test_the_plain_mix_comes_back_once_nothing_cancels() -> None:
    assert choose_signs(products(SOUNDS[0], SOUNDS[0]), (1, -1)) == (1, 1)


def test_a_voice_in_one_channel_does_not_change_the_polarity() -> None:
    assert choose_signs(products(SOUNDS[0], np.zeros(400))) == (1, 1)
