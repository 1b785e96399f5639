"""What POST /audio/process refuses: files that are no recordings, too long, too large or too slow."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import httpx
import pytest

from backend.config import Settings
from backend.wiring.services import Services
from tests.conftest import api, scripted_speech
from tests.support.media import tone, wav_bytes, write
from tests.support.processing import assert_problem, post, row_count

pytestmark = pytest.mark.anyio


Files = Callable[[], list[str]]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "meeting.wav", tone(2.0))


BAD_FILES = [
    pytest.param(b"", 422, "empty", id="empty file"),
    pytest.param(b"this is text, not sound\n" * 50, 415, "not an audio", id="text named wav"),
    pytest.param(b"ffconcat version 1.0\nfile meeting.wav\n", 415, "not an audio", id="playlist"),
    pytest.param(b"%PDF-1.7" + bytes(3000), 415, "", id="pdf"),
    pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(300), 415, "", id="png"),
]


@pytest.mark.parametrize(("content", "status", "says"), BAD_FILES)
async def test_what_is_no_recording_is_refused_and_leaves_nothing(
    client: httpx.AsyncClient, services: Services, stored_files: Files, content: bytes, status: int, says: str
) -> None:
    answer = await client.post("/audio/process", files={"file": ("meeting.wav", content, "audio/wav")})
    assert_problem(answer, status, says)
    assert stored_files() == [] and await row_count(services) == 0


async def test_a_truncated_recording_is_refused_and_leaves_nothing(
    client: httpx.AsyncClient, services: Services, recording: Path, stored_files: Files
) -> None:
    recording.write_bytes(recording.read_bytes()[:30_000])
    assert_problem(await post(client, recording), 422, "truncated")
    assert stored_files() == [] and await row_count(services) == 0


async def test_a_recording_of_zero_length_is_refused(client: httpx.AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_bytes(b""))
    assert_problem(await post(client, tmp_path / "a.wav"), 422, "no audio samples")


async def test_a_recording_that_is_too_long_is_refused(settings: Settings, tmp_path: Path, stored_files: Files) -> None:
    async with api(settings, scripted_speech(max_s=1)) as (client, services):
        assert_problem(await post(client, write(tmp_path / "a.wav", tone(3.0))), 413, "MAX_AUDIO_SECONDS")
        assert stored_files() == [] and await row_count(services) == 0


async def test_a_file_over_the_limit_is_refused_by_its_announced_length(
    client: httpx.AsyncClient, stored_files: Files
) -> None:
    answer = await client.post("/audio/process", files={"file": ("big.wav", bytes(9_000_000), "audio/wav")})
    assert_problem(answer, 413, "MAX_UPLOAD_BYTES")
    assert stored_files() == []


async def test_a_file_over_the_limit_is_refused_while_it_comes_without_a_length(
    client: httpx.AsyncClient, stored_files: Files
) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        for _ in range(1000):
            sent += 100_000
            yield bytes(100_000)

    answer = await client.post(
        "/audio/process", content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert_problem(answer, 413, "larger than the 5000000 bytes allowed")
    assert sent < 8_000_000 and stored_files() == []


async def test_a_stalled_upload_is_given_up(settings: Settings, stored_files: Files) -> None:

    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF'
        await anyio.sleep(30)

    async with api(settings.model_copy(update={"upload_stall_timeout_s": 0.2})) as (client, _):
        answer = await client.post(
            "/audio/process", content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"}
        )
        assert_problem(answer, 408, "0.2 s")
        assert stored_files() == []
