"""Clients that take every place, read nothing or send ahead, against a real server with few descriptors."""

from __future__ import annotations

import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.media import tone, write
from tests.support.processes import ServerProcess, serving

Connect = Callable[..., socket.socket]

STALL_S = 2.0
DESCRIPTORS = 256
LARGE_ASSET = b"GET /assets/swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
ADA = {"X-API-Key": "ada-secret-1234567890"}
SERVE_WITH_FEW_FILES = (
    sys.executable,
    "-c",
    f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS // 2}, {DESCRIPTORS})); "
    "from backend.cli import app; app(['serve'])",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    settings = {"UPLOAD_STALL_TIMEOUT_S": str(STALL_S), "API_KEYS": "ada:ada-secret-1234567890"}
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, SERVE_WITH_FEW_FILES, DIARIZATION_ENGINE="none", **settings) as running:
        yield running


@pytest.fixture
def connect(server: ServerProcess) -> Iterator[Connect]:
    """Opens clients with a small buffer for what they do not read, and sends something from each."""
    opened: list[socket.socket] = []

    def open_one(sent: bytes = b"") -> socket.socket:
        url = httpx.URL(server.url)
        connection = socket.socket()
        opened.append(connection)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect((url.host, url.port))
        with suppress(ConnectionError):  # refused at once
            connection.sendall(sent)
        return connection

    yield open_one
    for connection in opened:
        connection.close()


def is_open(connection: socket.socket) -> bool:
    """Whether the server has not ended a connection; reads nothing of what came before."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return info[0] == 1  # TCP_ESTABLISHED


def wait_until_closed(connections: list[socket.socket], limit_s: float) -> None:
    end = time.monotonic() + limit_s
    while any(is_open(connection) for connection in connections):
        assert time.monotonic() < end, f"{sum(map(is_open, connections))} are open still"
        time.sleep(0.1)


def send(server: ServerProcess, recording: Path) -> httpx.Response:
    with recording.open("rb") as file:
        url = f"{server.url}/audio/process?async=true"
        return httpx.post(url, files={"file": file}, headers=ADA, timeout=30)


def test_the_soft_limit_of_open_files_is_raised_to_the_hard_one(server: ServerProcess) -> None:
    limits = psutil.Process(server.process.pid).rlimit(resource.RLIMIT_NOFILE)
    assert limits == (DESCRIPTORS, DESCRIPTORS)


def test_a_client_that_takes_nothing_of_its_answer_is_cut_off(server: ServerProcess, connect: Connect) -> None:
    connections = [connect(LARGE_ASSET * 4) for _ in range(5)]
    wait_until_closed(connections, 3 * STALL_S + 10)


def test_a_client_that_takes_a_byte_now_and_then_is_cut_off(server: ServerProcess, connect: Connect) -> None:
    connection, began = connect(LARGE_ASSET * 4), time.monotonic()
    with pytest.raises(OSError):
        while time.monotonic() - began < 5 * STALL_S + 20:
            assert connection.recv(100)
            time.sleep(0.2)
            if not is_open(connection):
                raise ConnectionResetError


def test_a_slow_client_that_goes_on_reading_gets_all_of_its_answer(server: ServerProcess, connect: Connect) -> None:
    connection = connect(LARGE_ASSET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    received, began = 0, time.monotonic()
    while data := connection.recv(16384):
        received += len(data)
        time.sleep(0.06)
    assert received > 1_500_000
    assert time.monotonic() - began > 2 * STALL_S


def test_silent_strangers_leave_room_for_a_key_holder(server: ServerProcess, connect: Connect, tmp_path: Path) -> None:
    recording = write(tmp_path / "a.wav", tone(0.5))
    for _ in range(330):
        connect(LARGE_ASSET * 8)
    time.sleep(5)
    answers = [send(server, recording) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [202] * 5, answers[-1].text
    assert psutil.Process(server.process.pid).num_fds() < DESCRIPTORS - 20
    log = server.log.read_text()
    assert "Traceback" not in log
    assert log.count("connections are open") <= 2


def test_silent_connections_without_a_request_give_way(server: ServerProcess, connect: Connect) -> None:
    for _ in range(200):
        connect()
    time.sleep(1.5)
    assert httpx.get(f"{server.url}/health/live", timeout=10).status_code == 204


def test_pipelined_requests_are_answered_in_order(server: ServerProcess, connect: Connect) -> None:
    last = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    connection = connect(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" + LARGE_ASSET + last)
    received = b""
    while data := connection.recv(262_144):
        received += data
    assert [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]] == [b"204", b"200", b"204"]


def test_a_pipelined_request_waits_until_the_answer_before_it_has_left(server: ServerProcess, connect: Connect) -> None:
    before = server.log.read_text().count("swagger-ui-bundle.js")
    connect(LARGE_ASSET * 8)
    time.sleep(1)
    assert server.log.read_text().count("swagger-ui-bundle.js") - before <= 2


def test_a_thousand_pipelined_requests_end_the_connection(server: ServerProcess, connect: Connect) -> None:
    connection = connect()
    with pytest.raises(OSError):
        for _ in range(100):
            connection.sendall(LARGE_ASSET * 100)
            time.sleep(0.05)
