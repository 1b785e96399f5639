"""Without descriptors a request is refused in one line of the log; and how many connections leave enough of them."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator

import anyio
import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.types import Message

from backend.api.middleware.descriptors import add_descriptor_guard, connection_limit
from backend.api.middleware.peers import TrustedPeers, peer_name

pytestmark = pytest.mark.anyio


@pytest.fixture
def app() -> FastAPI:
    """`/refused` finds no descriptor; `/late` finds none once its answer has begun; `/broken` fails otherwise."""
    app = FastAPI()

    @app.get("/refused")
    async def refuse() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    @app.get("/late")
    async def refuse_late() -> StreamingResponse:
        def pieces() -> Iterator[bytes]:
            yield b"first"
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        return StreamingResponse(pieces())

    @app.get("/broken")
    async def break_down() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    add_descriptor_guard(app)
    return app


async def get(app: FastAPI, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://aperta") as client:
        return await client.get(path)


async def test_want_of_descriptors_is_a_503_and_one_line(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        answers = [await get(app, "/refused") for _ in range(5)]
    assert {answer.status_code for answer in answers} == {503}
    assert int(answers[0].headers["retry-after"]) > 0
    (line,) = caplog.records
    assert "ulimit" in line.getMessage() and line.exc_info is None


async def test_an_answer_that_has_begun_ends_without_a_traceback(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        await anyio.sleep_forever()  # the client stays and sends nothing
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/late", "headers": [], "query_string": b""}
    with caplog.at_level(logging.WARNING):
        await app(scope, receive, send)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert [line.exc_info for line in caplog.records] == [None]


async def test_other_errors_of_files_are_not_hidden(app: FastAPI) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        await get(app, "/broken")


@pytest.mark.parametrize(
    ("descriptors", "limit"), [(-1, 4096), (1_048_576, 4096), (1024, 416), (256, 64), (64, 16), (2, 1)]
)
def test_connections_leave_descriptors_for_the_rest(descriptors: int, limit: int) -> None:
    assert connection_limit(4096, descriptors, uploads=64) == limit


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_a_peer_has_one_name(host: str, name: str) -> None:
    assert peer_name(host) == name


def test_trusted_peers_are_addresses_networks_or_all() -> None:
    trusted = TrustedPeers("127.0.0.1, 10.0.0.0/8,::1")
    assert all(host in trusted for host in ("127.0.0.1", "10.1.2.3", "::1"))
    assert not any(host in trusted for host in ("127.0.0.2", "11.0.0.1", "::2", "proxy"))
    assert "198.51.100.7" in TrustedPeers("*")
