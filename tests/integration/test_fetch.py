"""Recordings from URLs: names, types, sizes, and what is refused. A real server on loopback answers."""

from __future__ import annotations

import asyncio
import time
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis.strategies import text

from backend.domain.access.addresses import Allowance
from backend.errors import InvalidInput, RemoteUnavailable, TooLarge
from backend.services.remote.client import OutboundClient
from backend.services.remote.download import Fetcher, RemoteFile, disposition_filename
from tests.support.web_servers import Received, redirect, reply, web_server

pytestmark = pytest.mark.anyio

AUDIO = bytes(range(256)) * 40


def fetcher(
    *, enabled: bool = True, max_bytes: int = 100_000, stall_timeout_s: float = 5, timeout_s: float = 20
) -> Fetcher:
    client = OutboundClient(Allowance(networks=(ip_network("127.0.0.1/32"),)))
    return Fetcher(client, enabled=enabled, max_bytes=max_bytes, stall_timeout_s=stall_timeout_s, timeout_s=timeout_s)


async def fetched(url: str, using: Fetcher | None = None) -> tuple[RemoteFile, bytes]:
    async with (using or fetcher()).open(url) as remote:
        return remote, b"".join([chunk async for chunk in remote.chunks])


async def test_a_recording_arrives_with_its_name_type_and_size() -> None:
    async with web_server(reply(200, AUDIO, content_type="Audio/MPEG; charset=x")) as server:
        remote, content = await fetched(server.url("/archive/Board%20meeting.mp3?token=abc"))

    assert (remote.filename, remote.content_type, remote.size_bytes) == ("Board meeting.mp3", "audio/mpeg", len(AUDIO))
    assert content == AUDIO
    assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="a b.mp3"', "a b.mp3"),
        ("attachment; filename=plain.wav", "plain.wav"),
        ("attachment; filename*=UTF-8''%e2%82%ac%20rates.wav; filename=euro.wav", "€ rates.wav"),
        ("attachment; filename=\"euro.wav\"; filename*=iso-8859-1''caf%e9.wav", "café.wav"),
        ("attachment; filename*=no-such-charset''x.wav", "x.wav"),
        ('attachment; FILENAME="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\recordings\\\\a.wav"', "a.wav"),
        ('attachment; filename=".htaccess"', "htaccess"),
        ('attachment; filename="a\u202egnp.wav"', "agnp.wav"),
        ('attachment; filename=""', "from path.ogg"),
        ("inline", "from path.ogg"),
        ("; ;=;*=;", "from path.ogg"),
    ],
)
async def test_the_file_name_is_the_servers_made_safe(disposition: str, name: str) -> None:
    async with web_server(reply(200, b"x", content_disposition=disposition)) as server:
        remote, _ = await fetched(server.url("/from%20path.ogg"))

    assert remote.filename == name


@pytest.mark.parametrize(
    ("path", "name"), [("/", "recording"), ("/a/b/", "recording"), ("/..%2f..%2fx.wav", "x.wav"), ("/%00.wav", "wav")]
)
async def test_without_a_name_the_path_gives_one(path: str, name: str) -> None:
    async with web_server(reply(200, b"x")) as server:
        remote, _ = await fetched(server.url(path))

    assert remote.filename == name


@given(text())
def test_no_disposition_breaks_the_reader(disposition: str) -> None:
    for value in (disposition, f"attachment; filename*={disposition}", f'attachment; filename*0*="{disposition}"; x'):
        name = disposition_filename(value)
        assert name is None or isinstance(name, str)


async def test_after_a_redirect_the_final_path_names_the_file() -> None:
    async with (
        web_server(reply(200, b"x", content_type="text/html")) as there,
        web_server(redirect(there.url("/final.flac"))) as here,
    ):
        remote, _ = await fetched(here.url("/download"))

    assert (remote.filename, remote.content_type) == ("final.flac", None)


async def test_urls_are_refused_unless_switched_on() -> None:
    async with web_server(reply(200, AUDIO)) as server:
        with pytest.raises(InvalidInput, match="INGEST_FROM_URL"):
            await fetched(server.url(), fetcher(enabled=False))

    assert server.requests == []


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "http://127.0.0.2/a.wav", "file:///etc/passwd", "a.wav"])
async def test_forbidden_addresses_are_bad_input(url: str) -> None:
    with pytest.raises(InvalidInput):
        await fetched(url)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
async def test_a_client_error_is_bad_input_and_what_the_server_says_is_not_repeated(status: int) -> None:
    async with web_server(reply(status, b"internal secret")) as server:
        with pytest.raises(InvalidInput, match=f"answered {status}") as refused:
            await fetched(server.url())

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("status", [204, 206, 304, 399])
async def test_what_is_no_whole_recording_is_bad_input(status: int) -> None:
    async with web_server(reply(status)) as server:
        with pytest.raises(InvalidInput, match=f"answered {status}"):
            await fetched(server.url())


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
async def test_a_server_in_trouble_may_be_asked_again(status: int) -> None:
    async with web_server(reply(status, b"stack trace with secret")) as server:
        with pytest.raises(RemoteUnavailable, match=f"answered {status}") as failed:
            await fetched(server.url())

    assert "secret" not in str(failed.value)


async def test_endless_redirects_are_bad_input() -> None:
    async with web_server(redirect("/again")) as server:
        with pytest.raises(InvalidInput, match="more than 5 times"):
            await fetched(server.url())


async def test_a_packed_recording_is_refused() -> None:
    async with web_server(reply(200, b"x", content_encoding="gzip")) as server:
        with pytest.raises(InvalidInput, match="gzip"):
            await fetched(server.url())


async def test_a_recording_that_is_announced_as_too_large_is_not_read() -> None:
    async with web_server(reply(200, b"", content_length="100001")) as server:
        with pytest.raises(TooLarge, match="100000 bytes"):
            await fetched(server.url())


async def test_a_recording_that_turns_out_too_large_is_cut_off() -> None:
    async def answer(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            writer.write(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
            await writer.drain()

    async with web_server(answer) as server:
        with pytest.raises(TooLarge):
            await fetched(server.url())


async def test_a_recording_that_breaks_off_is_an_error_and_no_short_recording() -> None:
    async with web_server(reply(200, AUDIO, content_length=str(len(AUDIO) + 1))) as server:
        with pytest.raises(RemoteUnavailable, match="broke the connection off"):
            await fetched(server.url())


async def drip(_request: Received, writer: asyncio.StreamWriter) -> None:
    """A byte every now and then, for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def test_a_server_that_stalls_is_given_up() -> None:
    async def stall(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await asyncio.sleep(30)

    async with web_server(stall) as server:
        with pytest.raises(RemoteUnavailable, match="in time"):
            await fetched(server.url(), fetcher(stall_timeout_s=0.2))


async def test_a_server_that_drips_is_given_up_when_the_whole_takes_too_long() -> None:
    async with web_server(drip) as server:
        started = time.monotonic()
        with pytest.raises(RemoteUnavailable, match="INGEST_TIMEOUT_S"):
            await fetched(server.url(), fetcher(timeout_s=0.3))

    assert time.monotonic() - started < 3


async def test_a_server_that_drips_its_headers_is_given_up_too() -> None:
    async def headers(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not writer.is_closing():
            writer.write(b"X: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with web_server(headers) as server:
        with pytest.raises(RemoteUnavailable, match="INGEST_TIMEOUT_S"):
            await fetched(server.url(), fetcher(timeout_s=0.3))


async def test_who_stops_reading_closes_the_connection() -> None:
    gone = asyncio.Event()

    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        try:
            await drip(request, writer)
        finally:
            gone.set()

    async with web_server(answer) as server:
        async with fetcher().open(server.url()) as remote:
            assert await anext(remote.chunks) == b"x"
        await asyncio.wait_for(gone.wait(), 5)
