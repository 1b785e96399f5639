"""Silence beside speech changes no voice: padding, gaps, and microphones that are muted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.domain.transcript import SpeakerCount
from backend.engines.community1.diarizer import Community1Diarizer
from backend.engines.community1.embedding import usual_sound
from tests.support.media import decode
from tests.support.random_models import as_audio, silence

Floats = NDArray[np.float32]

MEETING = Path(__file__).resolve().parents[2] / "samples" / "meeting.flac"
LOG_ZERO, DITHER = -15.9, 4.0
"""What the features of zeros, and of noise of one step of 16 bits, are."""


@pytest.fixture(scope="module")
def diarizer() -> Community1Diarizer:
    pytest.importorskip("moonshine_voice")
    return Community1Diarizer(threads=2)


@pytest.fixture(scope="module")
def meeting() -> Floats:
    with decode(MEETING, max_s=600) as audio:
        return audio.read()


def speech(n_frames: int) -> Floats:
    loudness = np.random.default_rng(0).uniform(11, 18, (n_frames, 1))
    return (loudness + np.linspace(1, -1, 80)).astype(np.float32)


@pytest.mark.parametrize("level", [LOG_ZERO, DITHER])
def test_frames_of_silence_do_not_count_in_the_usual_sound(level: float) -> None:
    muted = np.full((700, 80), level, dtype=np.float32)
    assert np.array_equal(usual_sound(np.concatenate([muted, speech(300)])), usual_sound(speech(300)))


def test_pauses_of_a_room_count_in_the_usual_sound() -> None:
    room = np.full((300, 80), 7.0, dtype=np.float32)
    features = np.concatenate([room, speech(300)])
    assert np.array_equal(usual_sound(features), features.mean(axis=0))


def test_the_usual_sound_of_silence_alone_is_its_own() -> None:
    assert np.allclose(usual_sound(np.full((10, 80), LOG_ZERO, dtype=np.float32)), LOG_ZERO)


def dither(duration_s: float) -> Floats:
    steps = np.random.default_rng(0).integers(-1, 2, len(silence(duration_s)))
    return (steps / 32768).astype(np.float32)


@pytest.mark.parametrize(
    "pad",
    [
        lambda samples: np.concatenate([silence(7), samples]),
        lambda samples: np.concatenate([samples, silence(10)]),
        lambda samples: np.concatenate([silence(8) + np.float32(0.01), samples]),
        lambda samples: np.concatenate([dither(8), samples]),
        lambda samples: np.insert(samples, len(samples) // 2, silence(12)),
    ],
    ids=["zeros before", "zeros behind", "a constant before", "dither before", "a gap within"],
)
def test_silence_beside_speech_makes_no_speaker(
    diarizer: Community1Diarizer, meeting: Floats, pad: Callable[[Floats], Floats]
) -> None:
    with as_audio(pad(meeting)) as audio:
        found = diarizer.diarize(audio, SpeakerCount(), lambda _: None)
    assert len({turn.speaker for turn in found.turns}) == 3
