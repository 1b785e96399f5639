"""What is said in conversations is in the transcript: few errors, nothing left out, times in order."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from backend.services.speech.values import SpeechResult
from benchmarks.pipelines import Run
from benchmarks.scoring import find_truth, score
from tests.conftest import SAMPLE
from tests.support.conversations import EVALUATION, compose
from tests.whisper.conftest import Process

ENGINES = ("base", "tiny.en")
MORE_WER, MORE_CPWER = 1.0, 3.0
"""Points above the library's plain decoding, and above the WER; a word is 0.4 points of this recording."""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two minutes of three people, or the sample where no other recordings are."""
    if not EVALUATION.is_dir():
        return SAMPLE
    return compose(tmp_path_factory.mktemp("conversations"), "talk", seed=77, speakers=3, seconds=110)


@pytest.fixture(scope="module", params=ENGINES)
def heard(request: pytest.FixtureRequest, process: Process, recording: Path) -> tuple[str, SpeechResult]:
    return request.param, process(request.param, recording, "en")


def percent(heard: SpeechResult, recording: Path, name: str) -> float:
    segments = [(s.start_s, s.end_s, str(s.speaker), s.text) for s in heard.transcript.segments]
    run = Run("", heard.duration_s, 0.0, 0.0, 0, [], segments)
    rate = score(find_truth(recording), run).rates[name]
    return 100 * rate.wrong / rate.among


@pytest.mark.timeout(900)
def test_words_are_as_right_as_in_the_librarys_plain_decoding(
    heard: tuple[str, SpeechResult], process: Process, recording: Path
) -> None:
    pytest.importorskip("jiwer")
    plain = process(f"plain {heard[0]}", recording, "en")
    assert percent(heard[1], recording, "wer") <= percent(plain, recording, "wer") + MORE_WER
    assert percent(heard[1], recording, "dropped") <= percent(plain, recording, "dropped") + MORE_WER


def test_words_are_with_their_speaker(heard: tuple[str, SpeechResult], recording: Path) -> None:
    pytest.importorskip("meeteval")
    assert percent(heard[1], recording, "cpwer") <= percent(heard[1], recording, "wer") + MORE_CPWER


def test_no_speech_is_without_words(heard: tuple[str, SpeechResult]) -> None:
    coverage = heard[1].coverage
    assert coverage.speech_s > 0.7 * heard[1].duration_s
    assert coverage.without_words_s <= 0.02 * coverage.speech_s


def test_words_are_in_order_and_inside_the_recording(heard: tuple[str, SpeechResult]) -> None:
    _, result = heard
    words = [word for segment in result.transcript.segments for word in segment.words]
    assert words
    for word in words:
        assert word.start_s is not None and word.end_s is not None
        assert 0 <= word.start_s <= word.end_s <= result.duration_s
    for segment in result.transcript.segments:
        assert "".join(word.text for word in segment.words).strip() == segment.text
        starts = [word.start_s or 0.0 for word in segment.words]
        assert all(before <= after for before, after in pairwise(starts))
