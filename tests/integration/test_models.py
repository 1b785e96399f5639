"""Models by request: real engines on real files, some of them with random weights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from backend.config import Settings, SpeechConfig
from backend.errors import ProcessingFailed
from backend.wiring.engines import open_speech
from backend.wiring.services import Services
from tests.conftest import api, send
from tests.support.media import tone, write
from tests.support.random_models import WhisperShape, build_whisper


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multilingual and an English Whisper, with random weights, of the kinds that auto knows and does not know."""
    folder = tmp_path_factory.mktemp("models")
    build_whisper(folder / "base", WhisperShape(n_words=4))
    build_whisper(folder / "my-english", WhisperShape(n_words=4), multilingual=False)
    return folder


@pytest.fixture
def configured(settings: Settings, models_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no-hub-cache"))
    return settings.model_copy(update={"speech": SpeechConfig(models_dir=models_dir, diarization_engine="none")})


@pytest.fixture
async def opened(configured: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
    async with api(configured, open_speech(configured)) as pair:
        yield pair


@pytest.fixture
def silent(tmp_path: Path) -> Path:
    """No speech: whichever model is chosen has nothing to do, and is the one that the answer names."""
    return write(tmp_path / "silent.wav", tone(1.0) * 0)


async def ask(client: httpx.AsyncClient, path: Path, **fields: str) -> httpx.Response:
    return await client.post("/audio/process", files={"file": (path.name, path.read_bytes())}, data=fields)


@pytest.mark.parametrize(
    ("model", "engine"),
    [
        ("base", "faster-whisper base (int8, cpu)"),
        ("my-english", "faster-whisper my-english (int8, cpu)"),
        ("moonshine", "moonshine tiny-en"),
        ("moonshine-tiny-en", "moonshine tiny-en"),
        ("auto", "faster-whisper base (int8, cpu)"),
        (" ", "faster-whisper base (int8, cpu)"),
    ],
)
async def test_the_model_of_the_request_hears_the_recording(
    client: httpx.AsyncClient, silent: Path, model: str, engine: str
) -> None:
    answer = await ask(client, silent, model=model)
    assert answer.status_code == 200, answer.text
    assert answer.json()["engines"]["transcription"] == engine


async def test_an_unknown_model_is_refused_with_the_names_of_those_there_before_there_is_a_job(
    client: httpx.AsyncClient, silent: Path
) -> None:
    answer = await client.post(
        "/audio/process?async=true", files={"file": ("a.wav", silent.read_bytes())}, data={"model": "huge"}
    )
    assert answer.status_code == 422
    assert "There are: auto, base, moonshine, my-english." in answer.json()["detail"]
    assert (await client.get("/jobs")).json()["total"] == 0


@pytest.mark.parametrize("model", ["../base", "/etc", "base/../base", "a" * 201])
async def test_a_path_is_no_model(client: httpx.AsyncClient, silent: Path, model: str) -> None:
    assert (await ask(client, silent, model=model)).status_code == 422


async def test_a_model_that_does_not_know_the_language_is_refused(client: httpx.AsyncClient, silent: Path) -> None:
    answer = await ask(client, silent, model="moonshine", language="de")
    assert answer.status_code == 422
    assert "aperta models pull" in answer.json()["detail"]


async def test_a_language_that_only_another_model_knows_leads_to_that_one(
    client: httpx.AsyncClient, silent: Path
) -> None:
    assert (await ask(client, silent, language="de")).json()["engines"]["transcription"].startswith("faster-whisper")


async def test_the_list_says_what_is_there_and_what_is_loaded(client: httpx.AsyncClient, silent: Path) -> None:
    await ask(client, silent, model="moonshine")
    found = {model["name"]: model for model in (await client.get("/models")).json()["models"]}
    assert [*found] == ["base", "moonshine", "my-english"]
    base, moonshine = found["base"], found["moonshine"]
    assert (base["default"], len(base["languages"]), base["engine"]) == (True, 99, "faster-whisper")
    assert (moonshine["loaded"], moonshine["languages"], moonshine["default"]) == (True, ["en"], False)
    assert moonshine["times_real_time"] > 0
    assert found["my-english"]["loaded"] is False


async def test_the_same_key_with_another_model_is_another_request(client: httpx.AsyncClient, silent: Path) -> None:
    headers = {"Idempotency-Key": "one"}
    files = {"file": ("a.wav", silent.read_bytes())}
    first = await client.post("/audio/process", files=files, headers=headers, data={"model": "base"})
    other = await client.post("/audio/process", files=files, headers=headers, data={"model": "moonshine"})
    assert (first.status_code, other.status_code) == (200, 422)


async def test_a_model_that_left_the_disk_after_the_job_was_accepted_fails_the_job_and_keeps_the_recording(
    configured: Settings, silent: Path
) -> None:
    """As on a worker that does not have it: it is tried by others, and then it says what is missing."""
    accepting = configured.model_copy(update={"workers": "none"})
    async with api(accepting, open_speech(accepting)) as (client, _):
        files = {"file": ("a.wav", silent.read_bytes())}
        job = (await client.post("/audio/process?async=true", files=files, data={"model": "elsewhere"})).json()
        assert job["status"] == "queued"
    async with api(configured, open_speech(configured)) as (client, services):
        await services.runner.start()
        with pytest.raises(ProcessingFailed):
            await services.jobs.result(await services.jobs.wait(job["id"]))
        ended = (await client.get(f"/jobs/{job['id']}")).json()
        assert ended["status"] == "failed"
        assert "There is no model 'elsewhere'" in str(ended["error"])
        assert (await client.get(f"/conversations/{job['conversation_id']}")).json()["status"] == "failed"


async def test_only_the_built_in_model_refuses_german_with_the_command_that_helps(
    settings: Settings, silent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "no-hub-cache"))
    async with api(settings, open_speech(settings)) as (client, _):
        answer = await ask(client, silent, language="de")
        assert answer.status_code == 422
        assert "'de': `aperta models pull small`" in answer.json()["detail"]
        assert (await send(client, silent)).status_code == 200
