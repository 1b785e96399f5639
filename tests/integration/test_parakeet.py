"""The Parakeet adapter decodes for real, with random weights: the words are nonsense, the rest is not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from backend.domain.transcript import Transcription
from backend.engines.base import TranscribeOptions
from backend.engines.parakeet.transcriber import PAUSE_S, ParakeetTranscriber
from backend.engines.parakeet.windows import MAX_WINDOW_S, Window
from backend.errors import EngineUnavailable, InvalidInput
from tests.support.random_models import as_audio, silence, vowels
from tests.support.random_parakeet import build_parakeet

Run = Callable[..., Transcription]
LANGUAGES = frozenset({"en", "de"})


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_parakeet(tmp_path_factory.mktemp("models") / "parakeet-v3")


@pytest.fixture(scope="module")
def engine(model_dir: Path) -> ParakeetTranscriber:
    return ParakeetTranscriber(model_dir, name="parakeet-v3", languages=LANGUAGES, device="cpu")


@pytest.fixture(scope="module")
def run(engine: ParakeetTranscriber) -> Run:
    def transcribe(samples: np.ndarray, steps: list[float] | None = None, **options: str) -> Transcription:
        with as_audio(samples) as audio:
            report = (steps if steps is not None else []).append
            return engine.transcribe(audio, TranscribeOptions(**options), None, report)

    return transcribe


@pytest.fixture(scope="module")
def talk(run: Run) -> Transcription:
    """Two stretches of speech, 2 to 10 s and 16 to 24 s, in 25 s."""
    return run(np.concatenate([silence(2), vowels(8), silence(6), vowels(8, seed=5), silence(1)]), language="de")


def test_the_name_tells_what_runs(engine: ParakeetTranscriber, tmp_path: Path) -> None:
    assert engine.name == "parakeet parakeet-v3 (int8, cpu)"
    full = build_parakeet(tmp_path / "full", int8=False)
    assert ParakeetTranscriber(full, name="mine", full=True, device="cpu").name == "parakeet mine (float32, cpu)"


def test_joined_words_are_the_text(talk: Transcription) -> None:
    assert talk.segments
    for segment in talk.segments:
        assert "".join(word.text for word in segment.words).strip() == segment.text
        assert all(word.text.startswith(" ") and word.text.strip() for word in segment.words)


def test_words_have_rising_times_inside_the_speech_and_probabilities(talk: Transcription) -> None:
    words = [word for segment in talk.segments for word in segment.words]
    instants = [t or 0.0 for word in words for t in (word.start_s, word.end_s)]
    assert instants == sorted(instants)
    assert all(1.0 <= t <= 11.0 or 15.0 <= t <= 25.0 for t in instants)
    assert all(0 < (word.probability or 0) <= 1 for word in words)


def test_a_segment_does_not_span_a_long_silence(talk: Transcription) -> None:
    for segment in talk.segments:
        for before, after in zip(segment.words, segment.words[1:], strict=False):
            assert (after.start_s or 0.0) - (before.end_s or 0.0) < PAUSE_S


def test_windows_of_unequal_length_give_the_same_words_alone_and_in_a_batch(engine: ParakeetTranscriber) -> None:
    """What fills up the shorter one of a batch is not heard."""
    windows = [Window(0.0, 20.0), Window(22.0, 25.0)]
    with as_audio(np.concatenate([vowels(20), silence(2), vowels(3, seed=2)])) as audio:
        alone = [words for window in windows for words in engine._hear(audio, [window], lambda _: None)]
        together = engine._hear(audio, windows, lambda _: None)
    assert all(together)
    for words, same in zip(together, alone, strict=True):
        assert [(word.text, word.start_s) for word in words] == [(word.text, word.start_s) for word in same]


def test_stretches_are_heard_again_each_by_itself(engine: ParakeetTranscriber) -> None:
    with as_audio(np.concatenate([vowels(6), silence(4), vowels(4, seed=3)])) as audio:
        heard = engine.transcribe_spans(
            audio, [(0.0, 6.0), (7.0, 9.0), (10.0, 15.0)], TranscribeOptions(), lambda _: None
        )
    assert heard[0] and heard[2]
    assert all(10.0 <= segment.start_s <= segment.end_s <= 14.0 for segment in heard[2])


def test_speech_longer_than_a_window_is_heard_to_its_end(run: Run) -> None:
    words = [word for s in run(vowels(2.5 * MAX_WINDOW_S)).segments for word in s.words]
    starts = np.array([word.start_s for word in words])
    assert starts[0] < 2 and starts[-1] > 2.5 * MAX_WINDOW_S - 3
    assert np.diff(starts).max() < 5


def test_silence_has_no_words_and_no_language(run: Run) -> None:
    assert run(silence(5), language="de") == Transcription((), None)


def test_the_language_is_the_callers(run: Run, talk: Transcription) -> None:
    assert talk.language == "de"
    assert run(vowels(3)).language is None


def test_a_language_that_the_model_does_not_know_is_refused(run: Run) -> None:
    with pytest.raises(InvalidInput, match=r"2 European languages, not 'ja'.*aperta models pull small"):
        run(vowels(1), language="ja")


def test_progress_rises_to_one(run: Run) -> None:
    steps: list[float] = []
    run(np.concatenate([vowels(5), silence(5), vowels(5)]), steps)
    assert steps == sorted(steps) and steps[-1] == 1.0


def test_a_cancelled_transcription_ends_and_the_engine_can_be_used_again(engine: ParakeetTranscriber) -> None:
    def cancel(_fraction: float) -> None:
        raise KeyboardInterrupt

    with as_audio(vowels(5)) as audio:
        with pytest.raises(KeyboardInterrupt):
            engine.transcribe(audio, TranscribeOptions(), None, cancel)
        assert engine.transcribe(audio, TranscribeOptions(), None, lambda _: None).segments


def test_two_recordings_at_a_time_do_not_mix(engine: ParakeetTranscriber) -> None:
    wanted, found = {}, {}

    def hear(into: dict[int, Transcription], seed: int) -> None:
        with as_audio(vowels(6, seed=seed)) as audio:
            into[seed] = engine.transcribe(audio, TranscribeOptions(), None, lambda _: None)

    for seed in (1, 2):
        hear(wanted, seed)
    threads = [threading.Thread(target=hear, args=(found, seed)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == wanted and wanted[1] != wanted[2]


def test_memory_does_not_grow_with_the_recording(run: Run) -> None:
    minute = np.concatenate([vowels(20), silence(40)])
    run(np.tile(minute, 2))
    before = psutil.Process().memory_info().rss
    samples = np.tile(minute, 12)
    run(samples)
    assert psutil.Process().memory_info().rss - before < samples.nbytes + 60e6


def test_a_missing_file_is_named(model_dir: Path, tmp_path: Path) -> None:
    build_parakeet(tmp_path / "m")
    (tmp_path / "m" / "encoder-model.int8.onnx").unlink()
    with pytest.raises(EngineUnavailable, match=r"does not load on cpu \(File 'encoder-model\?int8\.onnx' not found"):
        ParakeetTranscriber(tmp_path / "m", name="m", device="cpu")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    build_parakeet(tmp_path / "m")
    (tmp_path / "m" / "encoder-model.int8.onnx").write_bytes(b"no model")
    with pytest.raises(EngineUnavailable, match=r"The Parakeet model in .*/m does not load on cpu"):
        ParakeetTranscriber(tmp_path / "m", name="m", device="cpu")
