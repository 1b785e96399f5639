"""The catalogue, and what is found on a disk."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from backend.engines import catalogue
from backend.engines.catalogue import KNOWN_MODELS, find_pyannote, find_whisper, list_models
from backend.engines.pyannote.diarizer import PyannoteDiarizer
from backend.errors import EngineUnavailable


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    return cache


def whisper_in(directory: Path) -> Path:
    directory.mkdir(parents=True)
    for name in (*catalogue.WHISPER_FILES, "vocabulary.txt"):
        (directory / name).write_text("x" * 10)
    return directory


def pipeline_in(directory: Path, *parts: str) -> Path:
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(
        "params:\n  segmentation: $model/segmentation\n  embedding: $model/embedding\n"
    )
    for part in parts:
        (directory / part).mkdir()
        (directory / part / "pytorch_model.bin").write_text("x")
    return directory


def snapshot(cache: Path, repo: str, revision: str = "abc") -> Path:
    return cache / f"models--{repo.replace('/', '--')}" / "snapshots" / revision


def test_whisper_is_found_by_directory(tmp_path: Path) -> None:
    assert find_whisper(str(whisper_in(tmp_path / "mine"))) == tmp_path / "mine"


def test_whisper_is_found_by_name_in_the_models_directory(tmp_path: Path) -> None:
    here = whisper_in(tmp_path / "small")
    assert find_whisper("small", tmp_path) == here


def test_whisper_is_found_by_name_in_the_hub_cache(hub_cache: Path) -> None:
    here = whisper_in(snapshot(hub_cache, KNOWN_MODELS["small"].repo))
    assert find_whisper("small") == here


def test_whisper_is_found_by_repository_in_the_hub_cache(hub_cache: Path) -> None:
    here = whisper_in(snapshot(hub_cache, "someone/whisper-of-mine"))
    assert find_whisper("someone/whisper-of-mine") == here


def test_a_models_directory_may_be_a_hub_cache(tmp_path: Path) -> None:
    here = whisper_in(snapshot(tmp_path, KNOWN_MODELS["tiny"].repo))
    assert find_whisper("tiny", tmp_path) == here


def test_the_main_revision_wins(hub_cache: Path) -> None:
    repo = KNOWN_MODELS["tiny"].repo
    whisper_in(snapshot(hub_cache, repo, "aaa"))
    newest = whisper_in(snapshot(hub_cache, repo, "bbb"))
    refs = newest.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("bbb")
    assert find_whisper("tiny") == newest


def test_an_alias_finds_its_model(tmp_path: Path) -> None:
    here = whisper_in(tmp_path / "large-v3-turbo")
    assert find_whisper("turbo", tmp_path) == here


def test_a_model_without_tokenizer_is_incomplete(tmp_path: Path) -> None:
    (whisper_in(tmp_path / "small") / "tokenizer.json").unlink()
    assert find_whisper("small", tmp_path) is None


def test_a_model_without_vocabulary_is_incomplete(tmp_path: Path) -> None:
    (whisper_in(tmp_path / "small") / "vocabulary.txt").unlink()
    assert find_whisper("small", tmp_path) is None


def test_a_pipeline_is_found_in_the_hub_cache(hub_cache: Path) -> None:
    here = pipeline_in(snapshot(hub_cache, KNOWN_MODELS["community-1"].repo), "segmentation", "embedding")
    assert find_pyannote() == here


def test_a_pipeline_without_a_part_it_names_is_incomplete(tmp_path: Path) -> None:
    pipeline_in(tmp_path / "community-1", "segmentation")
    assert find_pyannote("community-1", tmp_path) is None


def test_the_list_says_what_is_on_disk(tmp_path: Path) -> None:
    here = whisper_in(tmp_path / "small")
    status = {model.name: model for model in list_models(tmp_path)}
    assert (status["small"].path, status["small"].size_bytes) == (here, 40)
    assert (status["tiny"].path, status["tiny"].size_bytes) == (None, 78_000_000)
    assert status["community-1"].licence == "CC-BY-4.0"


def test_the_list_has_models_of_ones_own(tmp_path: Path) -> None:
    here = whisper_in(tmp_path / "my-finetune")
    assert [model.path for model in list_models(tmp_path) if model.name == "my-finetune"] == [here]


@pytest.mark.skipif(find_spec("torch") is not None, reason="PyTorch is installed here")
def test_a_pipeline_without_its_package_names_the_extra(tmp_path: Path) -> None:
    pipeline_in(tmp_path / "community-1", "segmentation", "embedding")
    with pytest.raises(EngineUnavailable, match=r"pip install 'aperta-server\[pyannote\]'"):
        PyannoteDiarizer(models_dir=tmp_path)


def test_importing_the_catalogue_loads_no_ml_library() -> None:
    heavy = ["torch", "ctranslate2", "faster_whisper", "huggingface_hub", "pyannote.audio", "moonshine_voice", "httpx2"]
    code = f"import backend.engines.catalogue, sys; print([m for m in {heavy} if m in sys.modules])"
    root = Path(catalogue.__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
