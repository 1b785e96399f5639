"""The parts of `benchmarks.storage` that speak HTTP to a real server: its memory, and how long its answers take."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import httpx

from benchmarks.report import table
from benchmarks.storage_bench import GB, MB, Bench, ms
from benchmarks.torture.nursery import Child, Nursery, Order
from tests.support.media import wav_bytes
from tests.support.servers import FaultProxy, S3Server

SEND = "POST /audio/process?async=true"
FORM = {"Content-Type": "multipart/form-data; boundary=bench"}
SMALL_BYTES = 50_000


async def memory(bench: Bench) -> str:
    """What a server needs above its idle memory for uploads that go on to S3, by their size."""
    rows: list[tuple[object, ...]] = []
    with running_server(bench, "memory", bench.swift) as server:
        await server.wait()
        await server.upload(int(MB))
        idle_mb = server.memory_mb("VmRSS")
        for size in (int(64 * MB * bench.scale), int(GB * bench.scale)):
            server.forget_peak()
            took_s = await server.upload(size)
            above_mb = server.memory_mb("VmHWM") - idle_mb
            rows.append((f"{size / MB:.0f}", f"{took_s:.1f}", f"{idle_mb:.0f}", f"{above_mb:.0f}"))
    head = ("upload, MB", "seconds to the answer", "idle, MiB", "peak above idle, MiB")
    return f"Memory of a server, recordings to S3\n\n{table(head, rows, left=0)}"


async def latency(bench: Bench) -> str:
    """How long answers take while S3 works and while it swallows every packet; uploads go on meanwhile."""
    sides: list[dict[str, list[float]]] = []
    with FaultProxy(bench.swift) as proxy, running_server(bench, "latency", proxy.server) as server:
        await server.wait()
        await server.upload(SMALL_BYTES)
        [known] = await server.conversations()
        for mode in ("pass", "blackhole"):
            proxy.mode = mode
            sides.append(await server.probe(known, 20 * bench.scale))
    healthy, dead = sides
    rows = [
        (
            name,
            len(dead[name]),
            *(ms(quantile(side[name], share)) for side in sides for share in (0.5, 0.99)),
            f"{quantile(dead[name], 0.99) / quantile(healthy[name], 0.99):.1f}",
        )
        for name in healthy
    ]
    head = ("", "answers", "S3 works: p50, ms", "p99", "black hole: p50, ms", "p99", "p99, times as long")
    return f"Answers while four clients upload\n\n{table(head, rows)}"


class Served:
    """A real server with scripted engines."""

    def __init__(self, child: Child, log: Path) -> None:
        self._child, self._log = child, log
        self._http = httpx.AsyncClient(timeout=600, trust_env=False)

    async def wait(self, seconds: float = 60) -> None:
        """Return when it has said its address."""
        end = time.monotonic() + seconds
        while not (found := re.search(r"on (http://\S+)", self._log.read_text())):
            if time.monotonic() > end:
                raise RuntimeError(f"the server did not start:\n{self._log.read_text()}")
            await asyncio.sleep(0.05)
        self._http.base_url = httpx.URL(found.group(1))

    def forget_peak(self) -> None:
        """Let VmHWM count from here."""
        Path(f"/proc/{self._child.pid}/clear_refs").write_text("5")

    def memory_mb(self, name: str) -> float:
        """VmRSS, what is resident now, or VmHWM, the most that was."""
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(f"{name}:"))

    async def upload(self, size: int, path: str = "/audio/process") -> float:
        """Returns how long the answer took."""
        began = time.perf_counter()
        (await self._http.post(path, content=_form(size), headers=FORM)).raise_for_status()
        return time.perf_counter() - began

    async def conversations(self) -> list[str]:
        answer = await self._http.get("/conversations")
        return [item["id"] for item in answer.json()["conversations"]]

    async def probe(self, known: str, seconds: float) -> dict[str, list[float]]:
        """Ask several things over and over while others upload; how long each answer took."""
        paths = {
            "GET /health": "/health",
            "GET /conversations": "/conversations?limit=20",
            "GET /conversations/…/transcript": f"/conversations/{known}/transcript",
            "GET /metrics": "/metrics",
            "GET /audio/storage-info": "/audio/storage-info",
        }
        found: dict[str, list[float]] = {name: [] for name in (*paths, SEND)}
        end = time.monotonic() + seconds

        async def ask(name: str, path: str) -> None:
            while time.monotonic() < end:
                began = time.perf_counter()
                (await self._http.get(path)).raise_for_status()
                found[name].append(time.perf_counter() - began)
                await asyncio.sleep(0.02)

        async def send() -> None:
            while time.monotonic() < end:
                found[SEND].append(await self.upload(SMALL_BYTES, "/audio/process?async=true"))
                await asyncio.sleep(0.2)

        await asyncio.gather(*(ask(*pair) for pair in paths.items()), *(send() for _ in range(4)))
        return found


@contextlib.contextmanager
def running_server(bench: Bench, name: str, store: S3Server) -> Iterator[Served]:
    folder = bench.folder / f"{name}-server"
    folder.mkdir()
    log = folder / "log"
    log.touch()
    environment = {
        "PATH": os.environ["PATH"],
        "PORT": "0",
        "UPLOAD_DIR": str(folder / "uploads"),
        "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/rows.db",
        "JOBS_AT_ONCE": "4",
        "MAX_QUEUED_JOBS": "100000",
        "MAX_QUEUED_JOBS_PER_KEY": "100000",
        "S3_BUCKET_NAME": bench.bucket(name),
        "S3_ENDPOINT_URL": store.url,
        "S3_REGION": "us-east-1",
        "S3_SERVER_SIDE_ENCRYPTION": "none",
        "AWS_ACCESS_KEY_ID": store.access_key,
        "AWS_SECRET_ACCESS_KEY": store.secret_key,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    nursery = Nursery()
    try:
        yield Served(nursery.fork_now(Order(["serve"], environment, str(folder), str(log), hasty=False)), log)
    finally:
        nursery.close()  # and with it the server


def quantile(values: Sequence[float], share: float) -> float:
    """The value that so many are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def _form(size: int) -> AsyncIterator[bytes]:
    """A form with a recording of random bytes behind a WAV header."""
    head = 'Content-Disposition: form-data; name="file"; filename="meeting.wav"\r\nContent-Type: audio/wav'
    yield f"--bench\r\n{head}\r\n\r\n".encode() + wav_bytes(b"")
    block = os.urandom(MB)
    for start in range(0, size, MB):
        # Each block another one, so that nothing on the way can make it smaller.
        yield start.to_bytes(8, "little") + block[8 : min(MB, size - start)]
    yield b"\r\n--bench--\r\n"
