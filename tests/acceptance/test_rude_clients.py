"""Clients that are slow, silent, gone, or lie about what they send, against a real server over raw connections."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.media import tone, write
from tests.support.processes import ServerProcess, serving

STALL_S = 1.0
MAX_BYTES = 20_000_000
OPENING = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
POST = b"POST /audio/process HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    limits = {"UPLOAD_STALL_TIMEOUT_S": str(STALL_S), "MAX_UPLOAD_BYTES": str(MAX_BYTES), "MAX_CONCURRENT_UPLOADS": "3"}
    with serving(tmp_path_factory.mktemp("server"), DIARIZATION_ENGINE="none", **limits) as running:
        yield running


@pytest.fixture
def connect(server: ServerProcess) -> Iterator[Callable[[], socket.socket]]:
    opened: list[socket.socket] = []

    def open_one() -> socket.socket:
        url = httpx.URL(server.url)
        opened.append(socket.create_connection((url.host, url.port), timeout=20))
        return opened[-1]

    yield open_one
    for connection in opened:
        connection.close()


def answer(connection: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    received = b""
    try:
        while data := connection.recv(65536):
            received += data
    except ConnectionResetError:
        pass
    return received


def first_line(connection: socket.socket) -> bytes:
    received = b""
    while b"\r\n" not in received:
        data = connection.recv(65536)
        assert data, f"closed after {received!r}"
        received += data
    return received.split(b"\r\n")[0]


def spool(server: ServerProcess) -> list[Path]:
    return [path for path in (server.folder / "uploads" / ".spool").rglob("*.part") if path.is_file()]


def wait_until_swept(server: ServerProcess, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while spool(server):
        assert time.monotonic() < end, f"left behind: {spool(server)}"
        time.sleep(0.05)


@pytest.mark.parametrize("beginning", [b"", b"GET /hea", b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX-A: "])
def test_a_connection_without_a_whole_request_is_closed(connect: Callable[[], socket.socket], beginning: bytes) -> None:
    connection, began = connect(), time.monotonic()
    connection.sendall(beginning)
    assert answer(connection) == b""
    assert time.monotonic() - began < STALL_S + 10


def test_headers_that_drip_do_not_keep_a_connection_open(connect: Callable[[], socket.socket]) -> None:
    connection, began = connect(), time.monotonic()
    with pytest.raises(OSError):
        for letter in b"GET /health/live HTTP/1.1\r\nX-Slow: " + b"y" * 200:
            connection.sendall(bytes([letter]))
            time.sleep(0.1)
    assert time.monotonic() - began < STALL_S + 10


def test_a_head_without_end_is_refused_before_it_fills_the_memory(
    server: ServerProcess, connect: Callable[[], socket.socket]
) -> None:
    before = psutil.Process(server.process.pid).memory_info().rss
    connection = connect()
    connection.sendall(b"GET /health/live HTTP/1.1\r\nX-Long: ")
    with pytest.raises(OSError):
        for _ in range(1000):
            connection.sendall(b"y" * 1_000_000)
    assert psutil.Process(server.process.pid).memory_info().rss - before < 50_000_000


def test_a_connection_that_is_used_stays_open(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url) as client:
        for _ in range(3):
            assert client.get("/health/live").status_code == 204
            time.sleep(STALL_S * 0.8)


@pytest.mark.parametrize("path", [b"/audio/process", b"/people", b"/health/live"])
def test_a_body_that_never_comes_is_given_up(connect: Callable[[], socket.socket], path: bytes) -> None:
    connection, began = connect(), time.monotonic()
    head = (
        b"POST %s HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n"
    )
    connection.sendall(head % path)
    status = answer(connection).split(b"\r\n")[0]
    assert any(code in status for code in (b"408", b"405", b"409", b"422"))
    assert time.monotonic() - began < STALL_S + 15


def test_a_byte_now_and_then_does_not_keep_an_upload_alive(
    server: ServerProcess, connect: Callable[[], socket.socket]
) -> None:
    connection, began = connect(), time.monotonic()
    connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % len(OPENING) + OPENING + b"\r\n")
    connection.settimeout(0.1)
    received = b""
    while not received and time.monotonic() - began < STALL_S + 15:
        connection.sendall(b"1\r\nR\r\n")
        try:
            received = connection.recv(65536)
        except TimeoutError:
            continue
    assert received.startswith(b"HTTP/1.1 408")
    wait_until_swept(server)


def test_a_client_that_is_gone_leaves_no_file_and_frees_its_place(
    server: ServerProcess, connect: Callable[[], socket.socket], tmp_path: Path
) -> None:
    leaving = [connect() for _ in range(3)]
    for connection in leaving:
        connection.sendall(POST + b"Content-Length: 10000000\r\n\r\n" + OPENING + bytes(2_000_000))
    end = time.monotonic() + 10
    while len(spool(server)) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    for connection in leaving:
        connection.close()
    wait_until_swept(server)
    recording = write(tmp_path / "a.wav", tone(0.5))
    with recording.open("rb") as file:
        accepted = httpx.post(f"{server.url}/audio/process?async=true", files={"file": file}, timeout=60)
    assert accepted.status_code == 202, accepted.text


def test_more_uploads_than_allowed_are_refused_before_their_bodies(
    server: ServerProcess, connect: Callable[[], socket.socket]
) -> None:
    busy = [connect() for _ in range(3)]
    for connection in busy:
        connection.sendall(POST + b"Content-Length: 10000000\r\n\r\n" + OPENING + bytes(100_000))
    end = time.monotonic() + 10
    while len(spool(server)) < 3 and time.monotonic() < end:
        time.sleep(0.02)
    late = connect()
    late.sendall(POST + b"Content-Length: 10000000\r\nExpect: 100-continue\r\n\r\n")
    assert first_line(late) == b"HTTP/1.1 503 Service Unavailable"
    for connection in busy:
        connection.close()
    wait_until_swept(server)


def test_a_length_that_promises_too_much_is_a_stalled_upload(
    server: ServerProcess, connect: Callable[[], socket.socket]
) -> None:
    connection = connect()
    connection.sendall(POST + b"Content-Length: 5000000\r\n\r\n" + OPENING + b"RIFF\r\n--b--\r\n")
    assert first_line(connection).startswith(b"HTTP/1.1 4")
    wait_until_swept(server)


def test_a_length_that_promises_too_little_is_a_cut_off_upload(
    server: ServerProcess, connect: Callable[[], socket.socket]
) -> None:
    connection = connect()
    connection.sendall(POST + b"Content-Length: 100\r\n\r\n" + OPENING + bytes(5000) + b"\r\n--b--\r\n")
    assert first_line(connection).startswith(b"HTTP/1.1 400")
    wait_until_swept(server)


@pytest.mark.parametrize("length", [b"-5", b"1e9", b"99999999999999999999999", b"0x10", b"5, 6"])
def test_a_length_that_is_no_number_is_refused(connect: Callable[[], socket.socket], length: bytes) -> None:
    connection = connect()
    connection.sendall(POST + b"Content-Length: " + length + b"\r\n\r\n")
    assert first_line(connection).startswith(b"HTTP/1.1 4")


def test_ten_gigabytes_without_a_length_stop_at_the_limit(
    server: ServerProcess, connect: Callable[[], socket.socket]
) -> None:
    process, connection = psutil.Process(server.process.pid), connect()
    before, sent = process.memory_info().rss, 0
    connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % len(OPENING) + OPENING + b"\r\n")
    connection.settimeout(0.0)
    piece = b"100000\r\n" + bytes(0x100000) + b"\r\n"
    received, rest, peak = b"", b"", before
    while not received and sent < 10_000_000_000:
        rest = rest or piece
        try:
            done = connection.send(rest)
            sent, rest = sent + done, rest[done:]
        except BlockingIOError:
            time.sleep(0.001)
        peak = max(peak, process.memory_info().rss)
        try:
            received = connection.recv(65536)
        except BlockingIOError:
            continue
    assert received.startswith(b"HTTP/1.1 413")
    assert sent < MAX_BYTES + 20_000_000  # what lies in socket buffers was sent before the answer was there
    assert peak - before < 50_000_000
    wait_until_swept(server)


def test_ten_gigabytes_that_are_announced_are_refused_unread(connect: Callable[[], socket.socket]) -> None:
    connection = connect()
    connection.sendall(POST + b"Content-Length: 10000000000\r\nExpect: 100-continue\r\n\r\n")
    assert first_line(connection).startswith(b"HTTP/1.1 413")


def test_a_client_that_sends_on_after_its_answer_is_cut_off(connect: Callable[[], socket.socket]) -> None:
    connection, began = connect(), time.monotonic()
    connection.sendall(POST + b"Content-Length: 10000000000\r\n\r\n")
    with pytest.raises(OSError):
        while time.monotonic() - began < STALL_S + 15:
            connection.sendall(bytes(1000))
            time.sleep(0.01)
    assert time.monotonic() - began < STALL_S + 15
