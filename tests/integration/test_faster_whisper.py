"""The faster-whisper adapter decodes for real, with random weights: the words are nonsense, the rest is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backend.domain.transcript import Transcription
from backend.engines.base import TranscribeOptions
from backend.engines.whisper.transcriber import FasterWhisperTranscriber
from backend.engines.whisper.words import PAUSE_S
from backend.errors import EngineUnavailable, InvalidInput
from tests.support.random_models import as_audio, build_whisper, silence, vowels

Run = Callable[..., Transcription]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_whisper(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="module")
def engine(model_dir: Path) -> FasterWhisperTranscriber:
    return FasterWhisperTranscriber(str(model_dir), device="cpu", threads=1)


@pytest.fixture(scope="module")
def run(engine: FasterWhisperTranscriber) -> Run:
    def transcribe(samples: np.ndarray, steps: list[float] | None = None, **options: str) -> Transcription:
        with as_audio(samples) as audio:
            return engine.transcribe(
                audio, TranscribeOptions(**options), None, (steps if steps is not None else []).append
            )

    return transcribe


@pytest.fixture(scope="module")
def talk(run: Run) -> Transcription:
    """Two stretches of speech, 2 to 10 s and 16 to 24 s, in 25 s."""
    samples = np.concatenate([silence(2), vowels(8), silence(6), vowels(8, seed=5), silence(1)])
    return run(samples, language="en")


def test_a_directory_is_a_model_and_the_name_tells_what_runs(engine: FasterWhisperTranscriber) -> None:
    assert engine.name == "faster-whisper random (int8, cpu)"
    assert engine.needs_turns is False


def test_a_named_model_is_found_in_the_models_directory(model_dir: Path) -> None:
    models_dir = model_dir.parent
    (models_dir / "tiny").symlink_to(model_dir)
    assert (
        FasterWhisperTranscriber("tiny", models_dir=models_dir, device="cpu").name == "faster-whisper tiny (int8, cpu)"
    )


def test_joined_words_are_the_text(talk: Transcription) -> None:
    assert talk.segments
    for segment in talk.segments:
        assert "".join(word.text for word in segment.words).strip() == segment.text
        assert all(word.text.startswith(" ") for word in segment.words)


def test_times_rise_and_stay_inside_the_recording(talk: Transcription) -> None:
    instants = [t or 0.0 for s in talk.segments for word in s.words for t in (word.start_s, word.end_s)]
    assert instants == sorted(instants)
    assert instants[0] >= 0 and instants[-1] <= 25


def test_a_segment_does_not_span_a_long_silence(talk: Transcription) -> None:
    for segment in talk.segments:
        for before, after in zip(segment.words, segment.words[1:], strict=False):
            assert (after.start_s or 0.0) - (before.end_s or 0.0) < PAUSE_S
    assert len(talk.segments) >= 2


def test_the_given_language_is_used(run: Run) -> None:
    assert run(vowels(3), language="de").language == "de"


def test_the_language_code_may_be_in_capitals(run: Run) -> None:
    assert run(vowels(3), language=" DE ").language == "de"


def test_without_a_language_one_is_detected(run: Run, engine: FasterWhisperTranscriber) -> None:
    assert run(vowels(3)).language in engine._languages


@pytest.mark.parametrize("code", ["xx", "english", "en-US", "yue"])
def test_an_unknown_language_is_refused_with_the_valid_form(run: Run, code: str) -> None:
    with pytest.raises(InvalidInput, match="ISO 639-1"):
        run(vowels(1), language=code)


def test_an_english_only_model_refuses_other_languages(tmp_path: Path) -> None:
    engine = FasterWhisperTranscriber(str(build_whisper(tmp_path / "m", multilingual=False)), device="cpu")
    with as_audio(vowels(1)) as audio, pytest.raises(InvalidInput, match="only English"):
        engine.transcribe(audio, TranscribeOptions(language="de"), None, lambda _: None)


def test_prompt_and_hotwords_change_the_decoding(run: Run) -> None:
    plain = run(vowels(3), language="en")
    assert plain.segments
    for hints in ({"prompt": "ab"}, {"hotwords": "cd"}):
        assert run(vowels(3), language="en", **hints) != plain


def test_a_prompt_of_any_length_is_accepted(run: Run) -> None:
    run(vowels(3), language="en", prompt="word " * 500, hotwords="name " * 500)


def test_control_tokens_in_a_prompt_are_no_control_tokens(run: Run) -> None:
    assert run(vowels(3), language="en", prompt="ab <|endoftext|>") == run(vowels(3), language="en", prompt="ab")


def test_progress_rises_to_one(run: Run) -> None:
    steps: list[float] = []
    run(vowels(4), steps, language="en")
    assert steps == sorted(steps)
    assert min(steps) >= 0
    assert steps[-1] == 1.0


@pytest.mark.parametrize("samples", [silence(40), silence(0.03), vowels(0.01)], ids=["silence", "30 ms", "10 ms"])
def test_without_speech_the_transcription_is_empty(run: Run, samples: np.ndarray) -> None:
    assert run(samples) == Transcription()


def test_two_threads_get_the_same_as_one(run: Run, talk: Transcription) -> None:
    from concurrent.futures import ThreadPoolExecutor

    samples = np.concatenate([silence(2), vowels(8), silence(6), vowels(8, seed=5), silence(1)])
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: run(samples, language="en"), range(2))) == [talk, talk]


def test_a_missing_model_names_the_command_that_fetches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EngineUnavailable, match=r"small is not on this machine: run `aperta models pull small`"):
        FasterWhisperTranscriber("small", models_dir=tmp_path)


def test_an_incomplete_directory_names_the_missing_files(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(
        EngineUnavailable, match=r"config\.json, tokenizer\.json, vocabulary\.txt or vocabulary\.json missing"
    ):
        FasterWhisperTranscriber(str(tmp_path))


def test_a_damaged_model_is_one_sentence(tmp_path: Path) -> None:
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(EngineUnavailable, match="cannot be loaded on cpu"):
        FasterWhisperTranscriber(str(tmp_path), device="cpu")


def test_an_unknown_compute_type_is_one_sentence(model_dir: Path) -> None:
    with pytest.raises(EngineUnavailable, match="cannot be loaded on cpu: Invalid compute type"):
        FasterWhisperTranscriber(str(model_dir), device="cpu", compute_type="int3")
