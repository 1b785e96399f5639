"""Real servers and real faults on loopback: OpenStack Swift as an S3 store, and a TCP proxy that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import http.client
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PROJECT = Path(__file__).resolve().parents[2]
RINGS = ("account", "container", "object")


def swift_venv() -> Path | None:
    """Return the environment that OpenStack Swift is installed in, if it is."""
    venv = Path(os.environ.get("APERTA_SWIFT_VENV") or PROJECT / ".venv-swift")
    return venv if (venv / "bin" / "swift-proxy-server").exists() else None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True, slots=True)
class S3Server:
    """Where a running S3 store is and who may use it."""

    host: str
    port: int
    access_key: str = "test:tester"
    secret_key: str = "testing"
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


class Swift:
    """OpenStack Swift with its S3 API: one proxy and one server of each kind, one replica, no cache.

    Args:
        venv: where it is installed.
        root: an empty folder. What is stored there outlives the servers.
    """

    def __init__(self, venv: Path, root: Path) -> None:
        self._venv, self._root = venv, root
        self._ports = {name: free_port() for name in (*RINGS, "proxy")}
        self._running: list[subprocess.Popen[bytes]] = []
        self.server = S3Server("127.0.0.1", self._ports["proxy"])
        _write_swift_config(root, self._ports)
        ports = [str(self._ports[name]) for name in RINGS]
        subprocess.run([venv / "bin" / "python", "-c", _BUILD_RINGS, root, *ports], check=True)

    def start(self) -> None:
        """Start it, also again after a kill; returns when it answers."""
        self._running = [_start_swift_server(self._venv, self._root, name) for name in self._ports]
        _wait_until_healthy(self.server.port, self._root, self._running)

    def kill(self) -> None:
        for server in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@contextlib.contextmanager
def running_swift(venv: Path, root: Path) -> Iterator[S3Server]:
    """Run Swift in an empty folder, and kill it at the end."""
    swift = Swift(venv, root)
    try:
        swift.start()
        yield swift.server
    finally:
        swift.kill()


def _start_swift_server(venv: Path, root: Path, name: str) -> subprocess.Popen[bytes]:
    with (root / f"{name}.log").open("wb") as log:
        command = [venv / "bin" / f"swift-{name}-server", root / f"{name}-server.conf"]
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def _wait_until_healthy(port: int, root: Path, servers: list[subprocess.Popen[bytes]], limit_s: float = 30) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and all(server.poll() is None for server in servers):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/healthcheck")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise RuntimeError("Swift did not start:\n" + "\n".join(log.read_text()[-500:] for log in root.glob("*.log")))


_BUILD_RINGS = """
import sys
from swift.common.ring import RingBuilder
root, *ports = sys.argv[1:]
for name, port in zip(("account", "container", "object"), ports):
    builder = RingBuilder(6, 1, 0)
    builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "d1", "weight": 1})
    builder.rebalance()
    builder.get_ring().save(f"{root}/{name}.ring.gz")
"""

_PIPELINE = (
    "catch_errors gatekeeper healthcheck listing_formats s3api tempauth copy slo dlo versioned_writes symlink "
    "proxy-server"
)


def _write_swift_config(root: Path, ports: dict[str, int]) -> None:
    (root / "data" / "d1").mkdir(parents=True)
    (root / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_prefix = aperta\nswift_hash_path_suffix = tests\n"
        "[storage-policy:0]\nname = only\ndefault = yes\n"
    )
    for name, port in ports.items():
        (root / f"{name}-server.conf").write_text(_default_section(root, port) + _app_sections(name))


def _default_section(root: Path, port: int) -> str:
    return (
        f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nworkers = 0\nuser = {getpass.getuser()}\n"
        f"swift_dir = {root}\ndevices = {root}/data\nrecon_cache_path = {root}\n"
        "mount_check = false\ndisable_fallocate = true\n"
    )


def _app_sections(name: str) -> str:
    if name != "proxy":
        app = f"[app:{name}-server]\nuse = egg:swift#{name}\n{_PATIENCE}"
        return f"[pipeline:main]\npipeline = {name}-server\n{app}"
    filters = "".join(f"[filter:{f}]\nuse = egg:swift#{f}\n{_FILTERS.get(f, '')}" for f in _PIPELINE.split()[:-1])
    app = f"[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n{_PATIENCE}"
    return f"[pipeline:main]\npipeline = {_PIPELINE}\n{app}{filters}"


_PATIENCE = "conn_timeout = 10\nnode_timeout = 60\nrecoverable_node_timeout = 60\ncontainer_update_timeout = 60\n"
"""Nothing here repairs a listing later that a busy machine was too slow to write at once."""
_FILTERS = {
    "s3api": "location = us-east-1\ncheck_bucket_owner = false\nmax_upload_part_num = 10000\n",
    "tempauth": "user_test_tester = testing .admin\nuser_test_reader = reading\n",
    "slo": "max_manifest_segments = 10000\n",
    "versioned_writes": "allow_versioned_writes = true\nallow_object_versioning = true\n",
}


Mode = Literal["pass", "refuse", "503", "reset", "slow", "lostreply", "blackhole", "flip"]
Answer = Callable[[str], tuple[int, str] | None]
"""Given the head of a request: the status and S3 error code to answer it with; None: pass it on."""
_RESET_AFTER_BYTES = 200_000
_FLIP_AFTER_BYTES = 100_000
_HEAD_BYTES = 4096
_SLOW_BYTES_PER_S = 262_144
_SMALL_BUFFER_BYTES = 65_536


class FaultProxy:
    """A TCP proxy in front of a server, in a thread of its own.

    Attributes:
        mode: what happens to connections, may change at any time: pass; refuse (reset at once); 503 (answers itself);
            reset (after 200 KB sent); slow (256 KB/s); lostreply (the request passes, the answer never comes);
            blackhole (accepted, then silence); flip (one bit of each piece after 100 KB, either way).
        answer: in mode pass, what to refuse in the store's name.
        rewrite: bytes of replies to replace, old and new of equal length.
        connections: how many came.
    """

    def __init__(self, target: S3Server) -> None:
        self._target = target
        self.mode: Mode = "pass"
        self.rewrite: tuple[bytes, bytes] | None = None
        self.answer: Answer | None = None
        self.connections = 0
        self.server = S3Server("127.0.0.1", free_port(), target.access_key, target.secret_key)

    def __enter__(self) -> FaultProxy:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(5)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(5)

    def _run(self, ready: threading.Event) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._stopped = asyncio.Event()
        # A small buffer: what is slow here is then slow for the sender too, not only for what the kernel holds.
        listener = socket.create_server(("127.0.0.1", self.server.port))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER_BYTES)
        async with await asyncio.start_server(self._handle, sock=listener) as server:
            ready.set()
            await self._stopped.wait()
            server.close()
            handlers = asyncio.all_tasks() - {asyncio.current_task()}
            for task in handlers:
                task.cancel()
            await asyncio.gather(*handlers, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._treat(reader, writer)
        finally:
            writer.close()

    async def _treat(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "refuse":
            _reset(writer)
        elif self.mode == "blackhole":
            await self._stopped.wait()
        elif self.mode == "503":
            await reader.readuntil(b"\r\n\r\n")
            await _refuse(writer, 503, "SlowDown")
        elif self.answer is not None:
            await self._answer(reader, writer, self.answer)
        else:
            await self._pass_on(reader, writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
        """One request per connection, so that every head is seen."""
        head = await reader.readuntil(b"\r\n\r\n")
        if (refusal := answer(head.decode("latin-1"))) is not None:
            await _refuse(writer, *refusal)
            return
        await self._pass_on(reader, writer, head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes = b"") -> None:
        target_reader, target_writer = await self._connect()
        target_writer.write(head)
        up = asyncio.create_task(self._pump(reader, target_writer, writer, up=True))
        down = asyncio.create_task(self._pump(target_reader, writer, writer, up=False))
        try:
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        finally:
            target_writer.close()
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self._target.host, self._target.port)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, client: asyncio.StreamWriter, *, up: bool
    ) -> None:
        moved_bytes = 0
        while data := await source.read(65536):
            moved_bytes += len(data)
            mode = self.mode
            if mode in ("refuse", "503") or (up and mode == "reset" and moved_bytes > _RESET_AFTER_BYTES):
                return _reset(client)
            if mode == "blackhole" or (mode == "lostreply" and not up):
                await self._stopped.wait()
            if mode == "slow":
                await asyncio.sleep(len(data) / _SLOW_BYTES_PER_S)
            if mode == "flip" and moved_bytes > _FLIP_AFTER_BYTES and len(data) > _HEAD_BYTES:
                data = data[:-1] + bytes([data[-1] ^ 1])
            if self.rewrite and not up:
                data = data.replace(*self.rewrite)
            sink.write(data)
            await sink.drain()


async def _refuse(writer: asyncio.StreamWriter, status: int, code: str) -> None:
    body = f"<Error><Code>{code}</Code><Message>So it was told.</Message></Error>"
    writer.write(
        f"HTTP/1.1 {status} Refused\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
    )
    await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST, as a killed machine's kernel or a firewall does."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
