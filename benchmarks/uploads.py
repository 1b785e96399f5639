"""How fast big uploads reach the disk, and how much memory that takes.

The server runs in another process, with the whole application and no models. It is compared with `cat` from file
to file, and with `cat` from a socket on loopback to a file, which is all that a server could at best do. Client and
source are the same for all of them, the disk is that of `--folder`. Everything counts from the first byte sent until
the file is complete; for uploads that includes fsync and SHA-256, for `cat` it is told with and without fsync.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import random
import select
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.report import GIB, describe, machine, table

MB = 1_000_000
BLOCK_BYTES = 16 * 1024 * 1024
BOUNDARY = "------------------------4f1c2b7a9d3e8065"
TUS = {"Tus-Resumable": "1.0.0"}
BUSY = (409, 423)
"""The cut connection is not over for the server yet: ask again where to go on."""


@dataclass
class Server:
    port: int
    process: subprocess.Popen[bytes]
    folder: Path

    def request(self, method: str, path: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request(method, path, headers=headers or {})
        return connection.getresponse()

    @property
    def uploads(self) -> Path:
        return self.folder / "uploads" / ".spool" / "uploads"

    def forget_peak(self) -> None:
        """Let `peak_mb` count from here."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def memory_mb(self, name: str) -> float:
        """VmRSS, what is resident now, or VmHWM, the most that was."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(f"{name}:"))


@dataclass
class Figures:
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def take(self, name: str, work: Callable[[], object]) -> None:
        os.sync()  # what the one before left to be written is not this one's
        began = time.perf_counter()
        work()
        self.seconds.setdefault(name, []).append(time.perf_counter() - began)


def main() -> None:
    options = parsed_options()
    if options.serve:
        serve(options.serve, options.folder)
        return
    print(describe(machine()))
    folder = Path(tempfile.mkdtemp(prefix="uploads-", dir=options.folder))
    try:
        source = folder / "source"
        sha256 = write_source(source, int(options.gib * GIB))
        with running(folder) as server:
            memory(server, source)
            speeds(server, source, folder, options.rounds)
            if options.cuts:
                cut_and_resume(server, source, sha256, options.cuts, options.seed)
    finally:
        shutil.rmtree(folder)


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0, help="size of the upload (1)")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (3)")
    parser.add_argument("--cuts", type=int, default=0, help="also upload once with so many cut connections (0)")
    parser.add_argument("--seed", type=int, default=1, help="decides where the cuts are (1)")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk to measure (here)")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def speeds(server: Server, source: Path, folder: Path, rounds: int) -> None:
    copy, figures = folder / "copy", Figures()
    for _ in range(rounds):
        figures.take("`cat`", lambda: cat(source, copy, durable=False))
        figures.take("`cat`, fsync", lambda: cat(source, copy, durable=True))
        figures.take("socket to `cat`, fsync", lambda: cat_from_socket(source, copy))
        figures.take("POST multipart/form-data", lambda: post_form(server, source))
        figures.take("tus, one PATCH", lambda: delete(server, tus_upload(server, source)))
    size_mb, base = source.stat().st_size / MB, figures.seconds["`cat`, fsync"]
    rows = [
        (
            name,
            f"{size_mb / statistics.median(taken):.0f}",
            f"{size_mb / min(taken):.0f}",
            f"{100 * statistics.median(base) / statistics.median(taken):.0f} %",
        )
        for name, taken in figures.seconds.items()
    ]
    print(f"\n{size_mb:.0f} MB, {rounds} rounds\n")
    print(table(("way to the disk", "MB/s, median", "MB/s, best", "of `cat`, fsync"), rows))


def memory(server: Server, source: Path) -> None:
    """From a server that has just started."""
    before_mb, rows = server.memory_mb("VmRSS"), []
    ways: dict[str, Callable[[], object]] = {
        "POST multipart/form-data": lambda: post_form(server, source),
        "tus, one PATCH": lambda: delete(server, tus_upload(server, source)),
    }
    for name, work in ways.items():
        server.forget_peak()
        work()
        rows.append((name, f"{before_mb:.0f}", f"{server.memory_mb('VmHWM'):.0f}"))
    print()
    print(table(("memory of the server", "before, MiB", "peak, MiB"), rows))


def cut_and_resume(server: Server, source: Path, sha256: str, cuts: int, seed: int) -> None:
    """One upload whose connection is reset this many times, at random places."""
    size, chance = source.stat().st_size, random.Random(seed)
    places = sorted(chance.randrange(size) for _ in range(cuts))
    began = time.perf_counter()
    url, sent_again = begin(server, size), 0
    for place in [*places, None]:
        offset = offset_of(server, url)
        while (place is None or place > offset) and send_piece(server, url, source, offset, stop_at=place) in BUSY:
            time.sleep(0.1)
            offset = offset_of(server, url)
        if place is not None:
            sent_again += max(0, place - offset_of(server, url))
    seconds = time.perf_counter() - began
    [arrived] = server.uploads.iterdir()
    with arrived.open("rb") as file:
        equal = hashlib.file_digest(file, "sha256").hexdigest() == sha256
    print(
        f"\ntus with {cuts} cut connections: {size / MB:.0f} MB in {seconds:.1f} s, {sent_again / MB:.1f} MB sent "
        f"twice, SHA-256 {'equal' if equal else 'DIFFERENT'}"
    )
    delete(server, url)


def cat(source: Path, copy: Path, *, durable: bool) -> None:
    with copy.open("xb") as file:
        subprocess.run(["cat", source], stdout=file, check=True)
        if durable:
            os.fsync(file.fileno())
    copy.unlink()


def cat_from_socket(source: Path, copy: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, copy.open("xb") as file:
        with socket.create_connection(listener.getsockname()) as sender, source.open("rb") as content:
            receiver, _ = listener.accept()
            with receiver, subprocess.Popen(["cat"], stdin=receiver.fileno(), stdout=file):
                receiver.close()
                sender.sendfile(content)
                sender.shutdown(socket.SHUT_WR)
        os.fsync(file.fileno())
    copy.unlink()


def post_form(server: Server, source: Path) -> None:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="meeting.wav"\r\n\r\n'
    tail = f"\r\n--{BOUNDARY}--\r\n"
    length = len(head) + source.stat().st_size + len(tail)
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Length": str(length)}
    with sending(server, "POST", "/audio/process/spool", headers) as sock, source.open("rb") as content:
        with suppress(BrokenPipeError, ConnectionResetError):  # then the answer says why
            sock.sendall(head.encode())
            sock.sendfile(content)
            sock.sendall(tail.encode())
        check(sock, 200)


def tus_upload(server: Server, source: Path) -> str:
    """Returns its path."""
    url = begin(server, source.stat().st_size)
    send_piece(server, url, source, 0)
    return url


def begin(server: Server, size: int) -> str:
    return str(server.request("POST", "/uploads", TUS | {"Upload-Length": str(size)}).headers["Location"])


def offset_of(server: Server, url: str) -> int:
    return int(server.request("HEAD", url, TUS).headers["Upload-Offset"])


def delete(server: Server, url: str) -> None:
    server.request("DELETE", url, TUS)


def send_piece(server: Server, url: str, source: Path, offset: int, stop_at: int | None = None) -> int | None:
    """Send all from an offset on, and return the status; or stop somewhere and reset the connection."""
    size = source.stat().st_size
    headers = TUS | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": str(offset)}
    with (
        sending(server, "PATCH", url, headers | {"Content-Length": str(size - offset)}) as sock,
        source.open("rb") as content,
    ):
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.sendfile(content, offset, (size if stop_at is None else stop_at) - offset)
        if stop_at is None or select.select([sock], [], [], 0)[0]:  # an answer ahead of time is a refusal
            return check(sock, 204, *BUSY)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return None


@contextmanager
def sending(server: Server, method: str, path: str, headers: dict[str, str]) -> Iterator[socket.socket]:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        yield sock


def check(sock: socket.socket, *statuses: int) -> int:
    reply = sock.recv(65_536)
    status = int(reply.split(b" ", 2)[1]) if reply else 0
    if status not in statuses:
        raise RuntimeError(f"the server answered {reply[:500]!r}")
    return status


def write_source(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, BLOCK_BYTES):
            block = os.urandom(min(BLOCK_BYTES, size - start))
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "benchmarks.uploads", "--serve", str(port), "--folder", str(folder)]
    with subprocess.Popen(command) as process:
        server = Server(port, process, folder)
        try:
            wait_until_up(server)
            yield server
        finally:
            process.terminate()


def wait_until_up(server: Server) -> None:
    while server.process.poll() is None:
        try:
            if server.request("GET", "/health/live").status == 204:
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the server did not start")


def serve(port: int, folder: Path) -> None:
    """The application, and a route that spools a form as POST /audio/process does, and nothing more."""
    import asyncio

    import uvicorn
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response

    from backend.api.middleware.connections import Connections, timed_protocol
    from backend.api.requests.source import open_form
    from backend.api.requests.stream import StreamedBody
    from backend.config import Settings
    from backend.domain.transcript import Transcription
    from backend.engines.heap import return_large_blocks
    from backend.engines.lazy import Lazy
    from backend.engines.scripted import ScriptedTranscriber
    from backend.main import create_app
    from backend.services.speech.pipeline import SpeechPipeline
    from backend.services.storage import StorageConfig
    from backend.wiring.services import Services, open_services

    async def spool(request: Request) -> Response:
        services: Services = request.app.state.services
        form = open_form(request, settings.max_upload_bytes)
        async with services.storage.spool(form.file_chunks(), max_bytes=settings.max_upload_bytes) as spooled:
            return PlainTextResponse(spooled.sha256)

    async def run(app: FastAPI) -> None:
        async with open_services(settings, speech=speech) as services:
            app.state.services = services
            await uvicorn.Server(config).serve()

    settings = Settings(
        _env_file=None,
        database_url=f"sqlite+aiosqlite:///{folder}/rows.db",
        max_upload_bytes=1024 * GIB,
        storage=StorageConfig(_env_file=None, upload_dir=str(folder / "uploads")),
    )
    speech = SpeechPipeline(Lazy("none", lambda: ScriptedTranscriber(Transcription((), "en"))), None, max_audio_s=60)
    return_large_blocks()  # as a server with models does
    app = create_app(settings)
    app.router.add_api_route("/audio/process/spool", spool, methods=["POST"], route_class_override=StreamedBody)
    most = settings.max_connections
    protocol = timed_protocol(Connections(most, most, settings.upload_stall_timeout_s))
    config = uvicorn.Config(app, port=port, http=protocol, ws="none", lifespan="off", log_level="warning")
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(run(app))


if __name__ == "__main__":
    main()
