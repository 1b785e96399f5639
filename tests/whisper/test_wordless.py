"""Where nobody speaks no word is written, and a stray sound moves no word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SAMPLE
from tests.support.conversations import samples_of, save
from tests.support.random_models import silence
from tests.support.sounds import plucked_tune, wordless_sounds
from tests.whisper.conftest import Process

SOUND_S, SEED = 6.0, 5


@pytest.mark.parametrize("engine", ["base", "tiny.en", "moonshine"])
def test_sounds_without_speech_have_no_words(process: Process, engine: str, tmp_path: Path) -> None:
    sounds = wordless_sounds(SOUND_S, seed=SEED).values()
    recording = save(tmp_path / "sounds.flac", np.concatenate([part for one in sounds for part in (one, silence(2))]))
    result = process(engine, recording, "en")
    assert [segment.text for segment in result.transcript.segments] == []
    assert result.coverage.without_words_s == 0


@pytest.mark.parametrize("engine", ["base", "tiny.en"])
def test_a_stray_sound_long_before_speech_moves_no_word(process: Process, engine: str, tmp_path: Path) -> None:
    tune = plucked_tune(1.0, np.random.default_rng(SEED))
    speech = samples_of(SAMPLE)
    recording = save(tmp_path / "late.flac", np.concatenate([tune, silence(40), speech]))
    late, alone = process(engine, recording, "en"), process(engine, SAMPLE, "en")
    assert late.transcript.segments[0].start_s > 41
    assert late.transcript.speakers == alone.transcript.speakers
