"""The transcription models on a disk, and what their files tell about them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.engines.inventory import SpeechModel, transcription_models


@pytest.fixture(autouse=True)
def _empty_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))


def whisper_in(directory: Path, *tokens: str, kind: str = "txt") -> Path:
    directory.mkdir(parents=True)
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (directory / name).write_text("x" * 10)
    text = json.dumps(tokens) if kind == "json" else "\n".join(tokens) + "\n"
    (directory / f"vocabulary.{kind}").write_text(text)
    return directory


MULTILINGUAL = ("a", "", "<|endoftext|>", "<|en|>", "<|de|>", "<|yue|>", "<|transcribe|>")
ENGLISH = ("a", "<|endoftext|>", "<|en|>", "<|de|>", "<|transcribe|>")


def models_in(directory: Path, also: str | None = None) -> dict[str, SpeechModel]:
    return {model.name: model for model in transcription_models(directory, also)}


def test_the_built_in_model_is_always_there_and_knows_english(tmp_path: Path) -> None:
    moonshine = models_in(tmp_path)["moonshine"]
    assert (moonshine.languages, moonshine.identifies) == ({"en"}, False)
    assert moonshine.size_bytes > 10_000_000


@pytest.mark.parametrize("kind", ["txt", "json"])
def test_a_multilingual_model_knows_the_languages_of_its_vocabulary(tmp_path: Path, kind: str) -> None:
    whisper_in(tmp_path / "base", *MULTILINGUAL, kind=kind)
    base = models_in(tmp_path)["base"]
    assert (base.languages, base.identifies, base.word_times) == ({"en", "de", "yue"}, True, True)


def test_an_english_model_has_other_languages_in_its_vocabulary_and_knows_none_of_them(tmp_path: Path) -> None:
    whisper_in(tmp_path / "mine", *ENGLISH)
    assert models_in(tmp_path)["mine"].languages == {"en"}


def test_the_best_model_comes_first_and_models_of_ones_own_last(tmp_path: Path) -> None:
    for name in ("tiny", "zebra", "base", "large-v3-turbo", "tiny.en"):
        whisper_in(tmp_path / name, *MULTILINGUAL)
    assert [*models_in(tmp_path)] == ["large-v3-turbo", "base", "moonshine", "tiny", "tiny.en", "zebra"]


def test_a_model_that_settings_name_by_its_directory_is_called_after_it(tmp_path: Path) -> None:
    path = whisper_in(tmp_path / "elsewhere" / "my-german", *MULTILINGUAL)
    assert models_in(tmp_path / "models", str(path))["my-german"].path == path


def test_a_damaged_vocabulary_is_no_reason_to_fail(tmp_path: Path) -> None:
    path = whisper_in(tmp_path / "mine", kind="json")
    (path / "vocabulary.json").write_text("{")
    assert models_in(tmp_path)["mine"].languages == frozenset()


@pytest.mark.parametrize(
    ("name", "said"),
    [("moonshine", "moonshine"), ("moonshine", "moonshine-tiny-en"), ("large-v3-turbo", "turbo"), ("mine", "mine")],
)
def test_a_model_answers_to_its_other_names(name: str, said: str) -> None:
    assert SpeechModel(name, "faster-whisper", Path(), 0, frozenset()).is_called(said)


def test_a_model_does_not_answer_to_a_path(tmp_path: Path) -> None:
    assert not SpeechModel("base", "faster-whisper", tmp_path, 0, frozenset()).is_called(str(tmp_path))
