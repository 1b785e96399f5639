"""The catalogue, what is found on a disk, and how a download fails."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

from backend.engines import catalogue
from backend.engines.catalogue import KNOWN_MODELS, best_whisper_on_disk, find_pyannote, find_whisper, list_models, pull
from backend.engines.pyannote.diarizer import PyannoteDiarizer
from backend.errors import EngineUnavailable, NotFound

CLOSED_PORT = "http://127.0.0.1:9"  # the discard service: refused at once, here and anywhere


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    return cache


def whisper_in(directory: Path) -> Path:
    directory.mkdir(parents=True)
    for name in catalogue.WHISPER_FILES:
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


def test_the_best_model_on_disk_is_taken(tmp_path: Path) -> None:
    assert best_whisper_on_disk(tmp_path) is None
    for name in ("tiny", "small.en", "base", "small"):
        whisper_in(tmp_path / name)
    assert best_whisper_on_disk(tmp_path) == "small"


def test_the_fast_large_model_is_preferred_to_all(tmp_path: Path) -> None:
    for name in KNOWN_MODELS:
        whisper_in(tmp_path / name)
    assert best_whisper_on_disk(tmp_path) == "large-v3-turbo"


def test_a_pipeline_is_found_in_the_hub_cache(hub_cache: Path) -> None:
    here = pipeline_in(snapshot(hub_cache, KNOWN_MODELS["community-1"].repo), "segmentation", "embedding")
    assert find_pyannote() == here


def test_a_pipeline_without_a_part_it_names_is_incomplete(tmp_path: Path) -> None:
    pipeline_in(tmp_path / "community-1", "segmentation")
    assert find_pyannote("community-1", tmp_path) is None


def test_the_list_says_what_is_on_disk(tmp_path: Path) -> None:
    here = whisper_in(tmp_path / "small")
    status = {model.name: model for model in list_models(tmp_path)}
    assert (status["small"].path, status["small"].size_bytes) == (here, 30)
    assert (status["tiny"].path, status["tiny"].size_bytes) == (None, 78_000_000)
    assert status["community-1"].licence == "CC-BY-4.0"


def test_the_list_has_models_of_ones_own(tmp_path: Path) -> None:
    here = whisper_in(tmp_path / "my-finetune")
    assert [model.path for model in list_models(tmp_path) if model.name == "my-finetune"] == [here]


def test_pulling_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(NotFound, match=r"'smal'.*Known: tiny.en, .*community-1"):
        pull("smal")


@pytest.mark.usefixtures("_online")
def test_pulling_without_network_fails_at_once_and_says_what_to_do(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(EngineUnavailable, match=r"Cannot reach the model hub http.*refused.*ASR_MODEL=/path"):
        pull("tiny", tmp_path, endpoint=CLOSED_PORT)
    assert time.monotonic() - start < 10


def test_pulling_a_pipeline_without_network_names_its_own_setting(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="DIARIZATION_MODEL=/path"):
        pull("community-1", tmp_path, endpoint=CLOSED_PORT)


@pytest.fixture
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite runs with HF_HUB_OFFLINE, which the hub library reads once; these tests talk to this machine only."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture
def refusing_hub(_online: None) -> Iterator[str]:
    """A hub that answers everything with 401 and says that the repository is gated."""

    class Refusal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_pulling_a_gated_model_without_token_names_the_page_and_the_variable(refusing_hub: str, tmp_path: Path) -> None:
    page = r"https://huggingface\.co/pyannote/speaker-diarization-community-1"
    with pytest.raises(EngineUnavailable, match=rf"HF_TOKEN is not set\. Accept the conditions on {page}"):
        pull("community-1", tmp_path, endpoint=refusing_hub)


def test_pulling_a_gated_model_with_a_token_does_not_show_it(refusing_hub: str, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="this HF_TOKEN has no access") as caught:
        pull("community-1", tmp_path, token="hf_secret", endpoint=refusing_hub)
    assert "hf_secret" not in str(caught.value)


def test_an_unfinished_download_is_not_taken_for_a_model(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").touch()
    with pytest.raises(EngineUnavailable, match="tiny is incomplete"):
        pull("tiny", tmp_path, endpoint=CLOSED_PORT)


@pytest.mark.skipif(find_spec("torch") is not None, reason="PyTorch is installed here")
def test_a_pipeline_without_its_package_names_the_extra(tmp_path: Path) -> None:
    pipeline_in(tmp_path / "community-1", "segmentation", "embedding")
    with pytest.raises(EngineUnavailable, match=r"pip install 'aperta\[pyannote\]'"):
        PyannoteDiarizer(models_dir=tmp_path)


def test_importing_the_catalogue_loads_no_ml_library() -> None:
    heavy = ["torch", "ctranslate2", "faster_whisper", "huggingface_hub", "pyannote.audio", "moonshine_voice"]
    code = f"import backend.engines.catalogue, sys; print([m for m in {heavy} if m in sys.modules])"
    root = Path(catalogue.__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
