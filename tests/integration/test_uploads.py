"""Uploads in several requests: the tus protocol word by word, and with a real client against a real server."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import signal
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from tusclient.client import TusClient

from backend.config import Settings
from backend.database import uploads
from backend.domain.lifecycle import Retention
from backend.services.uploads.expiry import UploadSweeper
from backend.wiring.services import Services
from tests.conftest import SAMPLE, api
from tests.support.processes import ServerProcess, serving
from tests.support.servers import FaultProxy, S3Server

pytestmark = pytest.mark.anyio

TUS = {"Tus-Resumable": "1.0.0"}
PIECE = TUS | {"Content-Type": "application/offset+octet-stream"}
DATA = os.urandom(300_000)

StoredFiles = Callable[[], list[str]]


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


async def create(client: httpx.AsyncClient, size: int, filename: str = "meeting.flac", **headers: str) -> str:
    """Returns where the pieces go."""
    metadata = f"filename {encoded(filename)},filetype {encoded('audio/flac')}"
    asked = TUS | {"Upload-Length": str(size), "Upload-Metadata": metadata} | headers
    reply = await client.post("/uploads", headers=asked)
    assert reply.status_code == 201, reply.text
    return reply.headers["location"]


async def send(client: httpx.AsyncClient, url: str, data: bytes, offset: int = 0, **headers: str) -> httpx.Response:
    return await client.patch(url, headers=PIECE | {"Upload-Offset": str(offset)} | headers, content=data)


async def offset_of(client: httpx.AsyncClient, url: str) -> int:
    return int((await client.head(url, headers=TUS)).headers["upload-offset"])


@contextmanager
def half_a_piece(url: str, data: bytes, *, offset: int) -> Iterator[None]:
    """A PATCH that has sent some of its body and then says nothing more; its connection is reset at the end."""
    to = urlsplit(url)
    head = "".join(f"{name}: {value}\r\n" for name, value in (PIECE | {"Upload-Offset": str(offset)}).items())
    with socket.create_connection((to.hostname, to.port)) as sock:
        sock.sendall(
            f"PATCH {to.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(DATA)}\r\n{head}\r\n".encode() + data
        )
        time.sleep(0.3)
        yield
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def id_of(url: str) -> str:
    return url.rpartition("/")[2]


async def sha256_of(services: Services, url: str) -> str:
    """Looks at a complete upload without using it up."""

    class Enough(Exception):
        pass

    try:
        async with services.uploads.claim(id_of(url)) as (spooled, _, _):
            assert hashlib.sha256(spooled.path.read_bytes()).hexdigest() == spooled.sha256
            raise Enough
    except Enough:
        return spooled.sha256


async def test_what_is_spoken_here(client: httpx.AsyncClient) -> None:
    reply = await client.options("/uploads")
    assert reply.status_code == 204
    assert reply.headers["tus-version"] == reply.headers["tus-resumable"] == "1.0.0"
    assert set(reply.headers["tus-extension"].split(",")) == {
        "creation",
        "creation-with-upload",
        "creation-defer-length",
        "termination",
        "checksum",
        "expiration",
    }
    assert reply.headers["tus-checksum-algorithm"] == "sha1,sha256"
    assert reply.headers["tus-max-size"] == "5000000"


async def test_an_upload_in_pieces(client: httpx.AsyncClient, services: Services) -> None:
    url = await create(client, len(DATA))
    first = await send(client, url, DATA[:100_000])
    assert (first.status_code, first.headers["upload-offset"]) == (204, "100000")
    state = await client.head(url, headers=TUS)
    assert state.headers["upload-offset"] == "100000"
    assert state.headers["upload-length"] == "300000"
    assert state.headers["upload-metadata"].startswith(f"filename {encoded('meeting.flac')},filetype ")
    assert state.headers["cache-control"] == "no-store"
    assert state.headers["upload-expires"].endswith("GMT")
    await send(client, url, DATA[100_000:], 100_000)
    assert await sha256_of(services, url) == hashlib.sha256(DATA).hexdigest()


async def test_a_first_piece_with_the_creation(client: httpx.AsyncClient, services: Services) -> None:
    reply = await client.post("/uploads", headers=PIECE | {"Upload-Length": "300000"}, content=DATA[:200_000])
    assert (reply.status_code, reply.headers["upload-offset"]) == (201, "200000")
    url = reply.headers["location"]
    await send(client, url, DATA[200_000:], 200_000)
    assert await sha256_of(services, url) == hashlib.sha256(DATA).hexdigest()


async def test_a_size_that_is_known_later(client: httpx.AsyncClient, services: Services) -> None:
    reply = await client.post("/uploads", headers=TUS | {"Upload-Defer-Length": "1"})
    url = reply.headers["location"]
    await send(client, url, DATA[:1000])
    state = await client.head(url, headers=TUS)
    assert state.headers["upload-defer-length"] == "1" and "upload-length" not in state.headers
    await send(client, url, DATA[1000:], 1000, **{"Upload-Length": "300000"})
    assert (await client.head(url, headers=TUS)).headers["upload-length"] == "300000"
    assert (await send(client, url, b"", 300_000, **{"Upload-Length": "7"})).status_code == 409
    assert await sha256_of(services, url) == hashlib.sha256(DATA).hexdigest()


async def test_file_names_are_data(client: httpx.AsyncClient, services: Services) -> None:
    url = await create(client, 0, filename="../../etc/p\u202eass\x00wd.wav")
    async with services.uploads.claim(id_of(url)) as (_, filename, content_type):
        assert (filename, content_type) == ("passwd.wav", "audio/flac")


@pytest.mark.parametrize(
    ("headers", "status", "says"),
    [
        ({"Upload-Length": "1"}, 412, "Tus-Resumable"),
        (TUS, 400, "Upload-Length"),
        (TUS | {"Upload-Length": "-1"}, 400, "Upload-Length"),
        (TUS | {"Upload-Length": "5", "Upload-Defer-Length": "1"}, 400, "either"),
        (TUS | {"Upload-Defer-Length": "2"}, 400, "Upload-Defer-Length"),
        (TUS | {"Upload-Length": "5000001"}, 413, "MAX_UPLOAD_BYTES"),
        (TUS | {"Upload-Length": "5", "Upload-Metadata": "filename ***"}, 400, "Base64"),
        (TUS | {"Upload-Length": "5", "Upload-Metadata": "a YQ==,a YQ=="}, 400, "twice"),
        (PIECE | {"Upload-Length": "5", "Upload-Checksum": "md5 YQ=="}, 400, "sha1 and sha256"),
    ],
)
async def test_what_cannot_be_begun(
    client: httpx.AsyncClient, stored_files: StoredFiles, headers: dict[str, str], status: int, says: str
) -> None:
    reply = await client.post("/uploads", headers=headers)
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.headers["tus-resumable"] == "1.0.0"
    assert says in reply.json()["detail"]
    assert not stored_files()


async def test_a_piece_for_another_place_is_refused(client: httpx.AsyncClient) -> None:
    url = await create(client, len(DATA))
    await send(client, url, DATA[:1000])
    for offset in (0, 999, 1001):
        reply = await send(client, url, b"x", offset)
        assert reply.status_code == 409 and "at byte 1000" in reply.json()["detail"]
    assert await offset_of(client, url) == 1000


async def test_a_piece_must_say_what_it_is(client: httpx.AsyncClient) -> None:
    url = await create(client, 10)
    assert (await client.patch(url, headers=TUS | {"Upload-Offset": "0"}, content=b"x")).status_code == 415
    assert (await client.patch(url, headers=PIECE, content=b"x")).status_code == 400


async def test_a_wrong_checksum_keeps_nothing(client: httpx.AsyncClient, services: Services) -> None:
    url = await create(client, len(DATA))
    sums = {"right": encoded(hashlib.sha256(DATA).digest()), "wrong": encoded(hashlib.sha256(b"").digest())}
    reply = await send(client, url, DATA, **{"Upload-Checksum": f"sha256 {sums['wrong']}"})
    assert reply.status_code == 460 and reply.json()["title"] == "Checksum mismatch"
    assert await offset_of(client, url) == 0
    assert (await send(client, url, DATA, **{"Upload-Checksum": f"sha256 {sums['right']}"})).status_code == 204
    assert await sha256_of(services, url) == hashlib.sha256(DATA).hexdigest()


async def test_more_than_was_announced_is_refused(client: httpx.AsyncClient) -> None:
    url = await create(client, 1000)
    assert (await send(client, url, DATA)).status_code == 413


async def test_two_at_once_are_refused_and_a_silent_one_gives_way(client: httpx.AsyncClient) -> None:
    url = await create(client, len(DATA))
    began, statuses = anyio.Event(), []

    async def slow() -> AsyncIterator[bytes]:
        yield DATA[:50_000]
        began.set()
        await anyio.sleep(30)

    async def append() -> None:
        reply = await client.patch(url, headers=PIECE | {"Upload-Offset": "0"}, content=slow())
        statuses.append(reply.status_code)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(append)
        await began.wait()
        assert (await send(client, url, DATA)).status_code == 423
        assert await offset_of(client, url) == 0
        await anyio.sleep(2.1)
        assert await offset_of(client, url) == 50_000
    assert statuses == [423]
    assert (await send(client, url, DATA[50_000:], 50_000)).status_code == 204


async def test_giving_up(client: httpx.AsyncClient, stored_files: StoredFiles) -> None:
    url = await create(client, len(DATA))
    await send(client, url, DATA[:1000])
    assert (await client.delete(url, headers=TUS)).status_code == 204
    assert (await client.head(url, headers=TUS)).status_code == 404
    assert (await client.delete(url, headers=TUS)).status_code == 404
    assert not stored_files()


async def test_proxies_that_let_only_post_pass(client: httpx.AsyncClient) -> None:
    url = await create(client, 3)
    reply = await client.post(
        url, headers=PIECE | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}, content=b"abc"
    )
    assert (reply.status_code, reply.headers["upload-offset"]) == (204, "3")
    assert (await client.post(url, headers=TUS)).status_code == 405
    assert (await client.post(url, headers=TUS | {"X-HTTP-Method-Override": "DELETE"})).status_code == 204


async def test_what_expires_is_gone(client: httpx.AsyncClient, services: Services, stored_files: StoredFiles) -> None:
    old, young = await create(client, 1000), await create(client, 1000)
    await send(client, old, b"x")
    async with services.database.transaction() as session:
        await uploads.set_upload(session, id_of(old), expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert (await client.head(old, headers=TUS)).status_code == 410
    assert (await send(client, old, b"y", 1)).status_code == 410
    sweeper = UploadSweeper(
        services.uploads, services.storage.parts.resumable, services.database, retention=Retention(60)
    )
    assert await sweeper.sweep() == 1
    assert (await client.head(old, headers=TUS)).status_code == 404
    assert len(stored_files()) == 1
    assert await offset_of(client, young) == 0


async def test_a_file_that_belongs_to_no_upload_is_swept(services: Services, stored_files: StoredFiles) -> None:
    await services.storage.parts.resumable.create("forgotten.part")
    await anyio.sleep(0.01)
    assert (
        await UploadSweeper(
            services.uploads, services.storage.parts.resumable, services.database, retention=Retention(60)
        ).sweep()
        == 0
    )
    assert (
        await UploadSweeper(
            services.uploads, services.storage.parts.resumable, services.database, retention=Retention(0)
        ).sweep()
        == 1
    )
    assert not stored_files()


async def test_a_full_disk_is_said_before_the_body_is_read(settings: Settings) -> None:
    settings.storage.disk_hard_limit_bytes = 10**18
    async with api(settings) as (client, _):
        reply = await client.post("/uploads", headers=TUS | {"Upload-Length": "1000"})
    assert reply.status_code == 507 and "retry-after" in reply.headers


async def test_an_upload_becomes_a_conversation(client: httpx.AsyncClient, stored_files: StoredFiles) -> None:
    recording = SAMPLE.read_bytes()
    url = await create(client, len(recording))
    await send(client, url, recording[:10_000])
    early = await client.post("/audio/process", files={"upload_id": (None, id_of(url))})
    assert early.status_code == 409 and f"10000 of {len(recording)}" in early.json()["detail"]
    await send(client, url, recording[10_000:], 10_000)

    reply = await client.post("/audio/process", files={"upload_id": (None, id_of(url))})

    assert reply.status_code == 200, reply.text
    stored = Path(reply.json()["audio_file_path"])
    assert stored.name == "meeting.flac" and stored.read_bytes() == recording
    assert (await client.head(url, headers=TUS)).status_code == 404
    assert not [name for name in stored_files() if name.startswith(".spool")]


async def test_an_upload_that_is_refused_stays(client: httpx.AsyncClient, stored_files: StoredFiles) -> None:
    url = await create(client, len(DATA))
    await send(client, url, DATA)
    reply = await client.post("/audio/process", files={"upload_id": (None, id_of(url))})
    assert reply.status_code == 415
    assert await offset_of(client, url) == len(DATA)
    assert len(stored_files()) == 1


async def test_an_upload_that_there_is_not(client: httpx.AsyncClient) -> None:
    reply = await client.post("/audio/process", files={"upload_id": (None, "upload_0")})
    assert reply.status_code == 404


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


def arrived(server: ServerProcess) -> bytes:
    """What the server has of its one upload."""
    [file] = (server.folder / "uploads" / ".spool" / "uploads").iterdir()
    return file.read_bytes()


def test_a_client_that_resumes_over_a_line_that_is_cut_again_and_again(server: ServerProcess) -> None:
    """tuspy through a proxy that resets every connection after 200 KB."""
    data = os.urandom(1_500_000)
    with FaultProxy(S3Server("127.0.0.1", urlsplit(server.url).port or 0)) as proxy:
        proxy.mode = "reset"
        client = TusClient(f"{proxy.server.url}/uploads")
        uploader = client.uploader(file_stream=io.BytesIO(data), retries=100, retry_delay=0)
        uploader.upload()
        assert proxy.connections > len(data) // 200_000
    assert hashlib.sha256(arrived(server)).digest() == hashlib.sha256(data).digest()
    httpx.delete(f"{server.url}{urlsplit(uploader.url).path}")


def test_a_client_that_checks_every_piece(server: ServerProcess) -> None:
    client = TusClient(f"{server.url}/uploads")
    uploader = client.uploader(file_stream=io.BytesIO(DATA), chunk_size=64_000, upload_checksum=True)
    uploader.upload()
    assert arrived(server) == DATA
    httpx.delete(uploader.url)


def test_a_connection_that_is_reset_keeps_what_came(server: ServerProcess) -> None:
    created = httpx.post(f"{server.url}/uploads", headers=TUS | {"Upload-Length": str(len(DATA))})
    url = server.url + created.headers["location"]
    with half_a_piece(url, DATA[:200_000], offset=0):
        pass
    deadline, offset = time.monotonic() + 5, 0
    while not offset and time.monotonic() < deadline:
        offset = int(httpx.head(url, headers=TUS).headers["upload-offset"])
    # A reset throws away what the kernel had not handed over yet.
    assert 0 < offset <= 200_000
    httpx.patch(url, headers=PIECE | {"Upload-Offset": str(offset)}, content=DATA[offset:])
    assert arrived(server) == DATA
    httpx.delete(url)


def test_what_was_confirmed_outlives_kill_9(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        created = httpx.post(f"{server.url}/uploads", headers=TUS | {"Upload-Length": str(len(DATA))})
        path = created.headers["location"]
        first = httpx.patch(server.url + path, headers=PIECE | {"Upload-Offset": "0"}, content=DATA[:1000])
        assert first.is_success
        with half_a_piece(server.url + path, DATA[1000:200_000], offset=1000):
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait()
    with serving(tmp_path) as server:
        assert httpx.head(server.url + path, headers=TUS).headers["upload-offset"] == "1000"
        httpx.patch(server.url + path, headers=PIECE | {"Upload-Offset": "1000"}, content=DATA[1000:])
        assert arrived(server) == DATA
