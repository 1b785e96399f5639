"""Stopping engines in the middle of real work: what progress raises comes out soon, and they work afterwards."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from backend.domain.transcript import Diarization, SpeakerCount, SpeakerTurn
from backend.engines.audio.probe import MediaInfo
from backend.engines.audio.samples import SAMPLE_RATE_HZ, Audio
from backend.engines.audio.vad import speech_regions
from backend.engines.base import Progress, TranscribeOptions
from backend.engines.community1 import clustering
from backend.engines.community1.diarizer import Community1Diarizer
from backend.engines.moonshine.transcriber import MoonshineTranscriber
from backend.engines.progress import Abandoned, watched
from backend.engines.whisper.transcriber import FasterWhisperTranscriber
from backend.services.speech.steps import DirectSteps
from backend.services.speech.values import SpeechOptions
from tests.conftest import SAMPLE, scripted_speech
from tests.support.media import decode, tone, write
from tests.support.random_models import as_audio, build_whisper, vowels

MAX_S = 2.0
"""From the wish to stop to the end of the work."""


class Stop(Exception):
    """What a caller raises who wants no more."""


class Stopper:
    """A progress callback that raises at its n-th call, and knows how long it had to wait for each."""

    def __init__(self, calls: int) -> None:
        self._left = calls
        self._called_at = time.monotonic()
        self.longest_wait_s = 0.0

    def __call__(self, fraction: float) -> None:
        now = time.monotonic()
        self.longest_wait_s = max(self.longest_wait_s, now - self._called_at)
        self._called_at = now
        self._left -= 1
        if self._left <= 0:
            raise Stop

    @property
    def since_s(self) -> float:
        return time.monotonic() - self._called_at


def assert_stops(work: Callable[[Progress], object], calls: int) -> None:
    stopper = Stopper(calls)
    with pytest.raises(Stop):
        work(stopper)
    assert stopper.since_s < MAX_S and stopper.longest_wait_s < MAX_S


@pytest.fixture(scope="module")
def talk() -> Iterator[Audio]:
    """Eight minutes: the sample again and again."""
    with decode(SAMPLE, max_s=60) as once, tempfile.TemporaryFile() as file:
        samples = np.tile(once.read(), 15)
        file.write(samples.tobytes())
        file.flush()
        yield Audio(file, len(samples), MediaInfo("wav", "pcm_f32le", SAMPLE_RATE_HZ, 1, None))


@pytest.fixture(scope="module")
def long_vowels() -> Iterator[Audio]:
    with as_audio(vowels(300.0)) as audio:
        yield audio


@pytest.fixture(scope="module")
def sample() -> Iterator[Audio]:
    with decode(SAMPLE, max_s=60) as audio:
        yield audio


@pytest.fixture(scope="module")
def diarizer() -> Community1Diarizer:
    return Community1Diarizer(threads=2)


@pytest.fixture(scope="module")
def moonshine() -> MoonshineTranscriber:
    return MoonshineTranscriber(threads=2)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> FasterWhisperTranscriber:
    model = build_whisper(tmp_path_factory.mktemp("models") / "random")
    return FasterWhisperTranscriber(str(model), device="cpu", threads=1)


def nothing(_fraction: float) -> None:
    pass


@pytest.mark.parametrize("calls", [1, 20, 40])  # at once, while voices are embedded, deep in it
def test_diarization_stops(diarizer: Community1Diarizer, talk: Audio, sample: Audio, calls: int) -> None:
    assert_stops(lambda progress: diarizer.diarize(talk, SpeakerCount(), progress), calls)
    assert len({turn.speaker for turn in diarizer.diarize(sample, SpeakerCount(), nothing).turns}) == 3


def test_clustering_of_many_voices_stops() -> None:
    random = np.random.default_rng(0)
    voices = random.normal(size=(8000, 64)).astype(np.float32)
    voices /= np.linalg.norm(voices, axis=1, keepdims=True)
    windows, seconds = np.arange(len(voices)), np.ones(len(voices), dtype=np.float32)

    def work(progress: Progress) -> object:
        return clustering.find_speakers(voices, windows, seconds, SpeakerCount(), check=lambda: progress(0.5))

    for calls in (5, 100):
        assert_stops(work, calls)


@pytest.mark.parametrize("calls", [1, 5])
@pytest.mark.parametrize("turns", [True, False])
def test_moonshine_stops(moonshine: MoonshineTranscriber, talk: Audio, sample: Audio, calls: int, turns: bool) -> None:
    spoken = tuple(SpeakerTurn(float(at_s), at_s + 20.0, "a") for at_s in range(0, 480, 22))
    diarization = Diarization(spoken, spoken) if turns else None
    assert_stops(lambda progress: moonshine.transcribe(talk, TranscribeOptions(), diarization, progress), calls)
    assert moonshine.transcribe(sample, TranscribeOptions(), None, nothing).segments
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("moonshine")]


def test_looking_for_speech_stops(talk: Audio) -> None:
    assert_stops(lambda progress: list(speech_regions(talk, progress)), 1)
    assert list(speech_regions(talk))


@pytest.mark.parametrize("calls", [1, 3])
def test_whisper_stops(whisper: FasterWhisperTranscriber, long_vowels: Audio, calls: int) -> None:
    options = TranscribeOptions(language="en")
    assert_stops(lambda progress: whisper.transcribe(long_vowels, options, None, progress), calls)
    with as_audio(vowels(5.0)) as short:
        assert whisper.transcribe(short, options, None, nothing).segments


def test_work_that_is_left_behind_ends_at_its_next_report() -> None:
    ended: list[BaseException] = []

    def endless(report: Progress) -> None:
        try:
            while True:
                time.sleep(0.01)
                report(0.5)
        except BaseException as error:
            ended.append(error)
            raise

    assert_stops(lambda progress: watched(endless, progress), 3)
    end = time.monotonic() + 5
    while not ended and time.monotonic() < end:
        time.sleep(0.01)
    assert isinstance(ended[0], Abandoned)


def test_watched_work_returns_raises_and_reports() -> None:
    seen: list[float] = []

    def slow(report: Progress) -> str:
        report(0.25)
        time.sleep(0.7)
        return "done"

    assert watched(slow, seen.append) == "done"
    assert 0.25 in seen and seen == sorted(seen)
    with pytest.raises(TimeoutError, match="its own"):
        watched(lambda _report: (_ for _ in ()).throw(TimeoutError("its own")), nothing)


def test_a_file_that_is_closed_under_abandoned_work_harms_nobody(moonshine: MoonshineTranscriber) -> None:
    for _ in range(3):
        with decode(SAMPLE, max_s=60) as audio, pytest.raises(Stop):
            moonshine.transcribe(audio, TranscribeOptions(), None, Stopper(1))
    with decode(SAMPLE, max_s=60) as audio:
        assert moonshine.transcribe(audio, TranscribeOptions(), None, nothing).segments


@pytest.mark.anyio
async def test_a_recording_that_is_stopped_just_when_it_was_decoded_leaves_no_file_open(tmp_path: Path) -> None:
    def stop(stage: str, fraction: float) -> None:
        if (stage, fraction) == ("decode", 1.0):
            raise Stop

    path = write(tmp_path / "meeting.wav", tone(1.0))
    speech = scripted_speech()
    await speech.run(path, SpeechOptions(), DirectSteps())
    before = psutil.Process().num_fds()
    with pytest.raises(Stop) as stopped:  # held, because a frame that is forgotten closes its files, too
        await speech.run(path, SpeechOptions(), DirectSteps(stop))
    assert psutil.Process().num_fds() == before, stopped
