"""Text where nobody can have spoken, and where speech is likely."""

from __future__ import annotations

import numpy as np
import pytest

from backend.domain.evidence import FRAME_S, SpeechEvidence


def evidence(*parts: tuple[float, float]) -> SpeechEvidence:
    """From (seconds, probability) one after the other."""
    frames = [np.full(round(seconds / FRAME_S), likely, dtype=np.float32) for seconds, likely in parts]
    return SpeechEvidence(np.concatenate(frames))


def test_where_nothing_sounds_like_speech_every_text_is_invented() -> None:
    assert evidence((10, 0.03)).is_invented("The library opens on Monday.", 2, 5)


def test_a_faint_voice_is_believed_what_engines_do_not_invent() -> None:
    assert not evidence((10, 0.2)).is_invented("Okay, on Monday.", 2, 3)


@pytest.mark.parametrize("text", ["Thank you for watching!", "  you", "Untertitel der Amara.org-Community", "Eh?"])
def test_what_engines_invent_needs_speech(text: str) -> None:
    assert evidence((10, 0.2)).is_invented(text, 2, 3)
    assert not evidence((10, 0.9)).is_invented(text, 2, 3)


def test_speech_just_beside_a_text_counts_for_it() -> None:
    assert not evidence((2, 0.0), (1, 0.9), (5, 0.0)).is_invented("Well then.", 3.1, 3.5)


def test_seconds_and_the_highest_probability_are_of_the_stretch_alone() -> None:
    heard = evidence((3.2, 0.0), (3.2, 0.9))
    assert heard.seconds(0, 3.2) == 0
    assert heard.seconds(0, 100) == pytest.approx(3.2)
    assert heard.most(0, 3.2) == 0
    assert heard.most(50, 60) == 0


def test_short_pauses_part_no_stretches() -> None:
    spans = evidence((3.2, 0.0), (1.6, 0.9), (0.32, 0.1), (1.6, 0.9), (3.2, 0.1), (0.64, 0.9)).spans()
    assert [(round(start_s, 2), round(end_s, 2)) for start_s, end_s in spans] == [(3.2, 6.72), (9.92, 10.56)]


def test_without_frames_nothing_is_likely() -> None:
    nothing = SpeechEvidence(np.zeros(0, dtype=np.float32))
    assert nothing.spans() == []
    assert nothing.most(0, 1) == 0
