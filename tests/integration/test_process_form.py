"""The form of POST /audio/process: its fields, where the file may be, and every malformed body."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from backend.wiring.services import Services
from tests.support.media import tone, write
from tests.support.processing import assert_problem, post, row_count

pytestmark = pytest.mark.anyio


Files = Callable[[], list[str]]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "meeting.wav", tone(2.0))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"num_speakers": "0"}, "num_speakers"),
        ({"num_speakers": "-1"}, "num_speakers"),
        ({"num_speakers": "two"}, "num_speakers"),
        ({"num_speakers": "2.5"}, "num_speakers"),
        ({"max_speakers": "1000000"}, "max_speakers"),
        ({"min_speakers": "5", "max_speakers": "2"}, "greater than"),
        ({"num_speakers": "3", "max_speakers": "2"}, "outside"),
        ({"language": "German"}, "language: give a code such as en, de or pt-BR"),
        ({"title": "x" * 501}, "title"),
    ],
)
async def test_wrong_fields_are_named(
    client: httpx.AsyncClient,
    services: Services,
    recording: Path,
    stored_files: Files,
    fields: dict[str, str],
    says: str,
) -> None:
    assert_problem(await post(client, recording, **fields), 422, says)
    assert stored_files() == [] and await row_count(services) == 0


async def test_blank_fields_count_as_not_given(client: httpx.AsyncClient, recording: Path) -> None:
    answer = await post(client, recording, language="", num_speakers="", prompt=" ", title="")
    assert answer.status_code == 200


async def test_a_missing_file_field_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.post("/audio/process", files={"title": (None, b"Committee")})
    assert_problem(answer, 422, "no 'file' field")


@pytest.mark.parametrize("field", ["audio", "audio_file", "files", "files[]"])
async def test_a_file_in_a_field_of_another_service_is_taken(
    client: httpx.AsyncClient, recording: Path, field: str
) -> None:
    answer = await client.post("/audio/process", files={field: ("meeting.wav", recording.read_bytes())})
    assert answer.status_code == 200 and answer.json()["audio_file_path"].endswith("meeting.wav")


@pytest.mark.parametrize("field", ["recording", "title", "url"])
async def test_a_file_in_another_field_is_refused_before_it_is_read(
    client: httpx.AsyncClient, stored_files: Files, field: str
) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="%s"; filename="a.wav"\r\n\r\n' % field.encode()
        for _ in range(1000):
            sent += 60_000
            yield b"x" * 60_000

    answer = await client.post(
        "/audio/process", content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert_problem(answer, 422, f"'{field}' takes no file. Send the recording as 'file'")
    assert sent < 3_000_000 and stored_files() == []


async def test_a_file_without_a_name_is_known_by_its_type(client: httpx.AsyncClient) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="recording"\r\nContent-Type: audio/wav\r\n\r\nRIFF'
    answer = await client.post(
        "/audio/process", content=head, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert_problem(answer, 422, "'recording' takes no file")


async def test_a_text_field_may_come_from_a_text_file(client: httpx.AsyncClient, recording: Path) -> None:
    files = {"file": ("a.wav", recording.read_bytes()), "title": ("title.txt", b"Committee", "text/plain")}
    answer = await client.post("/audio/process", files=files)
    found = await client.get(f"/conversations/{answer.json()['conversation_id']}")
    assert found.json()["title"] == "Committee"


async def test_a_file_field_that_is_text_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/audio/process", files={"file": (None, b"meeting.wav")})
    assert_problem(answer, 422, "is text, not a file")


@pytest.mark.parametrize("field", ["file", "audio", "files[]"])
async def test_two_files_are_refused(
    client: httpx.AsyncClient, recording: Path, stored_files: Files, field: str
) -> None:
    files = [("file", ("a.wav", recording.read_bytes())), (field, ("b.wav", recording.read_bytes()))]
    assert_problem(await client.post("/audio/process", files=files), 422, "more than one file")
    assert stored_files() == []


async def test_a_body_that_is_no_form_is_unsupported(client: httpx.AsyncClient) -> None:
    assert_problem(await client.post("/audio/process", json={"file": "a.wav"}), 415, "multipart/form-data")
    assert_problem(await client.post("/audio/process"), 415, "multipart/form-data")


@pytest.mark.parametrize(
    ("content_type", "body", "says"),
    [
        ("multipart/form-data", b"", "boundary"),
        ("multipart/form-data; boundary=b", b"", "cut off"),
        ("multipart/form-data; boundary=b", b"not a part\r\n", "malformed"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF',
            "cut off",
        ),
    ],
)
async def test_a_malformed_body_is_a_bad_request(
    client: httpx.AsyncClient, stored_files: Files, content_type: str, body: bytes, says: str
) -> None:
    answer = await client.post("/audio/process", content=body, headers={"Content-Type": content_type})
    assert_problem(answer, 400, says)
    assert stored_files() == []


async def test_fields_may_come_after_the_file(client: httpx.AsyncClient, recording: Path) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    tail = b'\r\n--b\r\nContent-Disposition: form-data; name="num_speakers"\r\n\r\n99\r\n--b--\r\n'
    body = head + recording.read_bytes() + tail
    answer = await client.post(
        "/audio/process", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert_problem(answer, 422, "num_speakers")


async def test_many_small_fields_are_refused_before_they_fill_the_memory(
    client: httpx.AsyncClient, stored_files: Files
) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for number in range(1000):
            sent += 60_000
            yield b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n' % number + b"x" * 60_000 + b"\r\n"

    answer = await client.post(
        "/audio/process", content=body(), headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert_problem(answer, 413, "fields")
    assert sent < 3_000_000 and stored_files() == []
