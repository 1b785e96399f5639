"""Tracks that say the same count once."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.engines.audio.sameness import distinct, same_channel, same_sound
from backend.engines.progress import ignore_progress

RATE_HZ = 16_000
VOICES = np.cumsum(np.random.default_rng(3).normal(0, 0.02, (2, 20 * RATE_HZ)), axis=1).astype(np.float32)
VOICES -= np.apply_along_axis(lambda row: np.convolve(row, np.ones(400) / 400, "same"), 1, VOICES).astype(np.float32)


class Samples:
    """A track in memory."""

    def __init__(self, samples: NDArray[np.float32]) -> None:
        self._samples = samples.astype(np.float32)
        self.n_samples = len(samples)
        self.closed = False

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        return self._samples[start:stop]

    def close(self) -> None:
        self.closed = True


def delayed(samples: NDArray[np.float32], by: int) -> NDArray[np.float32]:
    return np.pad(samples, (by, 0))[: len(samples)]


@pytest.mark.parametrize("gain", [1.0, -1.0, 0.3, -0.5])
def test_a_copied_channel_is_the_same_whatever_its_gain_and_polarity(gain: float) -> None:
    assert same_channel(Samples(VOICES[0]), Samples(gain * VOICES[0]), ignore_progress)


def test_two_voices_in_two_channels_are_two() -> None:
    assert not same_channel(Samples(VOICES[0]), Samples(VOICES[1]), ignore_progress)


def test_a_channel_with_a_brief_second_voice_is_not_the_same() -> None:
    brief = np.zeros_like(VOICES[0])
    brief[5 * RATE_HZ : 7 * RATE_HZ] = 0.3 * VOICES[1, 5 * RATE_HZ : 7 * RATE_HZ]
    assert not same_channel(Samples(VOICES[0]), Samples(0.3 * VOICES[0] + brief), ignore_progress)


def test_the_noise_of_a_codec_makes_no_second_voice() -> None:
    noise = np.random.default_rng(5).normal(0, 0.04 * VOICES[0].std(), VOICES.shape[1])
    assert same_channel(Samples(VOICES[0]), Samples(0.8 * VOICES[0] + noise), ignore_progress)


@pytest.mark.parametrize("silent", [(0, 1), (1, 0)])
def test_a_silent_channel_is_not_the_same_as_a_voice(silent: tuple[int, int]) -> None:
    tracks = [Samples(VOICES[0]), Samples(np.zeros_like(VOICES[0]))]
    assert not same_channel(tracks[silent[0]], tracks[silent[1]], ignore_progress)


@pytest.mark.parametrize("by", [0, 300, 2_000])
def test_a_copy_in_another_codec_is_the_same_sound(by: int) -> None:
    noise = np.random.default_rng(5).normal(0, 0.01, VOICES.shape[1])
    other = delayed(-0.7 * VOICES[0], by) + noise
    assert same_sound(Samples(VOICES[0]), Samples(other), ignore_progress)


def test_two_tracks_of_which_one_hears_the_other_through_the_room_are_two() -> None:
    heard = 0.2 * delayed(VOICES[0], 500) + VOICES[1]
    assert not same_sound(Samples(VOICES[0]), Samples(heard), ignore_progress)


def test_speech_in_one_half_each_is_two_tracks() -> None:
    first, second = VOICES[0].copy(), VOICES[0].copy()
    first[RATE_HZ * 10 :], second[: RATE_HZ * 10] = 0.0, 0.0
    assert not same_sound(Samples(first), Samples(second), ignore_progress)


def test_tracks_that_say_the_same_are_closed() -> None:
    tracks = [Samples(VOICES[0]), Samples(VOICES[1]), Samples(-VOICES[0])]
    assert distinct(tracks, same_channel, ignore_progress) == (tracks[0], tracks[1])
    assert [track.closed for track in tracks] == [False, False, True]
