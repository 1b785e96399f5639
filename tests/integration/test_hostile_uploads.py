"""POST /audio/process with names, bodies and files made to harm, over the app without a network in between."""

from __future__ import annotations

import asyncio
import hashlib
import unicodedata
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from backend.api.middleware.body_limits import MAX_BODY_BYTES
from backend.config import Settings
from backend.database.models import Job
from backend.wiring.services import Services
from tests.conftest import api
from tests.support.hostile_media import PLAYLISTS, wav_and_page, wav_and_zip, zip_and_wav
from tests.support.media import tone, write

pytestmark = pytest.mark.anyio

Files = Callable[[], list[str]]
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
OPENING = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'


@pytest.fixture
def wav(tmp_path: Path) -> bytes:
    return write(tmp_path / "tone.wav", tone(1.0)).read_bytes()


def form(content: bytes, filename: bytes, parameter: bytes = b"filename") -> bytes:
    """A body with the name exactly as given: clients escape what they send."""
    head = b'--b\r\nContent-Disposition: form-data; name="file"; %s="%s"\r\n\r\n' % (parameter, filename)
    return head + content + b"\r\n--b--\r\n"


async def send(client: httpx.AsyncClient, body: bytes) -> httpx.Response:
    return await client.post("/audio/process", content=body, headers=FORM)


# Names


NAMES = {
    "../../../etc/passwd": "passwd",
    "..\\..\\boot.ini": "boot.ini",
    "C:\\Users\\ada\\talk.wav": "talk.wav",
    "nul\0l.wav": "null.wav",
    "bell\x07tab\t.wav": "belltab.wav",
    "txt.\u202evaw.exe": "txt.vaw.exe",
    "\u2066isolated\u2069.wav": "isolated.wav",
    "re\u0301sume\u0301.wav": "r\u00e9sum\u00e9.wav",
    "👩\u200d💻 talk 🎙.wav": "👩\u200d💻 talk 🎙.wav",
    "": "recording",
    ".": "recording",
    "   ": "recording",
    "con%0d%0aX: y.wav": "con%0d%0aX: y.wav",
    "a'; DROP TABLE x; --.wav": "a'; DROP TABLE x; --.wav",
}


async def test_names_are_made_safe_and_kept(client: httpx.AsyncClient, wav: bytes, stored_files: Files) -> None:
    kept = {}
    for name in NAMES:
        answer = await send(client, form(wav, name.encode()))
        assert answer.status_code == 200, answer.text
        conversation = (await client.get(f"/conversations/{answer.json()['conversation_id']}")).json()
        kept[name] = conversation["filename"]
        assert Path(answer.json()["audio_file_path"]).is_file()
    assert kept == NAMES
    assert all(file.startswith("conv_") for file in stored_files())


async def test_a_name_of_4_kb_is_shortened_everywhere(client: httpx.AsyncClient, wav: bytes) -> None:
    answer = await send(client, form(wav, ("会" * 1400 + ".wav").encode()))
    conversation = (await client.get(f"/conversations/{answer.json()['conversation_id']}")).json()
    assert conversation["filename"].endswith("会.wav") and len(conversation["filename"].encode()) <= 255
    assert all(len(Path(item["locator"]).name.encode()) <= 255 for item in conversation["objects"])


async def test_a_line_break_in_a_name_is_no_second_header(client: httpx.AsyncClient, wav: bytes) -> None:
    answer = await send(client, form(wav, b"a\r\nX-Evil: yes\r\n.wav"))
    assert answer.status_code in (200, 400, 422)
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize("parameter", [b"filename*", b"FileName*"])
async def test_a_name_in_the_encoded_form_is_understood(
    client: httpx.AsyncClient, wav: bytes, parameter: bytes
) -> None:
    body = form(wav, b"", parameter).replace(b'=""', b"=utf-8''t%C3%B6ne.wav")
    answer = await send(client, body)
    conversation = (await client.get(f"/conversations/{answer.json()['conversation_id']}")).json()
    assert conversation["filename"] == "töne.wav"


async def test_a_download_names_the_file_in_one_harmless_header(client: httpx.AsyncClient, wav: bytes) -> None:
    for name in ('a"b;c\\d%.wav', "\u202eevil\r\n.wav", "ünï 会.wav", "x" * 300):
        files = {"file": (name, wav, "audio/wav")}
        conversation = (await client.post("/audio/process", files=files)).json()["conversation_id"]
        download = await client.get(f"/conversations/{conversation}/audio")
        disposition = download.headers["content-disposition"]
        assert disposition.startswith("attachment;") and disposition.isascii() and disposition.isprintable()
        assert download.headers["x-content-type-options"] == "nosniff"


async def test_a_title_holds_no_invisible_characters(
    client: httpx.AsyncClient, wav: bytes, stored_files: Files
) -> None:
    for hidden in ("\u202e", "\0", "\n", "\u2028", "\u2067", "\ufeff"):
        answer = await client.post("/audio/process", files={"file": ("a.wav", wav)}, data={"title": f"x{hidden}y"})
        assert answer.status_code == 422 and "title" in answer.json()["detail"]
    assert stored_files() == []


async def test_a_title_is_kept_in_its_shortest_spelling(client: httpx.AsyncClient, wav: bytes) -> None:
    title = "Re\u0301union 👩\u200d💻"
    answer = await client.post("/audio/process", files={"file": ("a.wav", wav)}, data={"title": title})
    conversation = (await client.get(f"/conversations/{answer.json()['conversation_id']}")).json()
    assert conversation["title"] == unicodedata.normalize("NFC", title)


# Files


@pytest.mark.parametrize("join", [wav_and_page, wav_and_zip])
async def test_a_recording_that_is_a_page_or_an_archive_too_is_served_as_a_recording(
    client: httpx.AsyncClient, wav: bytes, join: Callable[[bytes], bytes]
) -> None:
    content = join(wav)
    answer = await client.post("/audio/process", files={"file": ("page.html", content, "text/html")})
    assert answer.status_code == 200, answer.text
    download = await client.get(f"/conversations/{answer.json()['conversation_id']}/audio")
    assert download.content == content
    assert download.headers["content-type"] == "application/octet-stream"
    assert download.headers["x-content-type-options"] == "nosniff"
    assert download.headers["content-disposition"].startswith("attachment")


async def test_what_names_other_files_or_hides_behind_another_format_is_unsupported(
    client: httpx.AsyncClient, tmp_path: Path, wav: bytes, stored_files: Files
) -> None:
    neighbour = write(tmp_path / "secret.wav", tone(1.0))
    where = {"name": neighbour.name, "path": neighbour, "url": "http://127.0.0.1:9", "port": 9}
    texts = [playlist.format(**where).encode() for playlist in PLAYLISTS.values()]
    for content in (*texts, zip_and_wav(wav)):
        answer = await client.post("/audio/process", files={"file": ("a.wav", content, "audio/wav")})
        assert answer.status_code == 415 and answer.headers["content-type"] == "application/problem+json"
    assert stored_files() == []


async def test_a_link_in_the_upload_folder_that_leads_outside_is_neither_read_nor_followed_to_delete(
    client: httpx.AsyncClient, wav: bytes, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the neighbour's")
    answer = (await client.post("/audio/process", files={"file": ("a.wav", wav)})).json()
    stored = Path(answer["audio_file_path"])
    stored.unlink()
    stored.symlink_to(secret)
    download = await client.get(f"/conversations/{answer['conversation_id']}/audio")
    assert download.status_code >= 400 and "neighbour" not in download.text
    await client.delete(f"/conversations/{answer['conversation_id']}")
    assert secret.read_text() == "the neighbour's"


# Bodies


async def test_a_trickle_is_given_up_although_it_never_stands_still(settings: Settings, stored_files: Files) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield OPENING
        while True:
            await asyncio.sleep(0.05)
            yield b"R"

    async with api(settings.model_copy(update={"upload_stall_timeout_s": 0.5})) as (client, _):
        answer = await client.post("/audio/process", content=body(), headers=FORM)
        assert answer.status_code == 408 and answer.json()["detail"].startswith("Only ")
        assert stored_files() == []


async def test_a_slow_upload_that_goes_on_may_take_longer_than_a_pause(settings: Settings, wav: bytes) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield OPENING
        for start in range(0, len(wav), 4000):  # 8 pieces, each within the time, all together not
            await asyncio.sleep(0.1)
            yield wav[start : start + 4000]
        yield b"\r\n--b--\r\n"

    async with api(settings.model_copy(update={"upload_stall_timeout_s": 0.5})) as (client, _):
        assert (await client.post("/audio/process", content=body(), headers=FORM)).status_code == 200


async def test_a_silent_body_is_given_up_on_every_route(settings: Settings) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'{"name": '
        await asyncio.sleep(30)

    quick = settings.model_copy(update={"upload_stall_timeout_s": 0.2, "known_voices": True})
    async with api(quick) as (client, _):
        answer = await client.post("/people", content=body(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 408 and answer.headers["content-type"] == "application/problem+json"


async def test_a_body_that_is_no_upload_may_not_be_large(client: httpx.AsyncClient) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 50 * MAX_BODY_BYTES:
            sent += 100_000
            yield b" " * 100_000

    answer = await client.post("/people", content=body(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413 and "1048576 bytes" in answer.json()["detail"]
    assert sent < 2 * MAX_BODY_BYTES


async def test_more_uploads_at_once_than_allowed_are_asked_to_come_back(settings: Settings, wav: bytes) -> None:
    ready, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield OPENING
        ready.set()
        await go_on.wait()
        yield wav + b"\r\n--b--\r\n"

    async with api(settings.model_copy(update={"max_concurrent_uploads": 1})) as (client, _):
        first = asyncio.create_task(client.post("/audio/process", content=slow(), headers=FORM))
        await ready.wait()
        refused = await send(client, form(wav, b"b.wav"))
        assert refused.status_code == 503 and "MAX_CONCURRENT_UPLOADS" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) > 0
        assert (await client.get("/conversations")).status_code == 200
        go_on.set()
        assert (await first).status_code == 200
        assert (await send(client, form(wav, b"b.wav"))).status_code == 200


async def test_a_place_is_free_again_after_every_kind_of_end(settings: Settings, wav: bytes) -> None:
    async def gone() -> AsyncIterator[bytes]:
        yield OPENING
        raise ConnectionError

    quick = settings.model_copy(update={"max_concurrent_uploads": 1, "upload_stall_timeout_s": 0.3})
    async with api(quick) as (client, _):
        assert (await client.post("/audio/process", content=gone(), headers=FORM)).status_code == 500
        assert (await send(client, b"no form")).status_code == 400
        assert (await send(client, OPENING + wav)).status_code == 400
        assert (await client.post("/audio/process", json={})).status_code == 415
        assert (await send(client, form(b"text", b"a.wav"))).status_code == 415
        assert (await send(client, form(wav, b"a.wav"))).status_code == 200


async def test_fifty_uploads_of_one_name_at_once_are_fifty_recordings(
    client: httpx.AsyncClient, services: Services, tmp_path: Path
) -> None:
    pitches = range(200, 700, 10)
    contents = [write(tmp_path / "one.wav", tone(0.2, frequency_hz=pitch)).read_bytes() for pitch in pitches]

    async def upload(content: bytes) -> str:
        files = {"file": ("meeting.wav", content, "audio/wav")}
        answer = await client.post("/audio/process?async=true", files=files, timeout=120)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["conversation_id"])

    conversations = await asyncio.gather(*(upload(content) for content in contents))
    async with services.database.transaction() as session:
        jobs = (await session.execute(select(Job))).scalars().all()
    assert {job.conversation_id: job.sha256 for job in jobs} == {
        conversation: hashlib.sha256(content).hexdigest()
        for conversation, content in zip(conversations, contents, strict=True)
    }
