"""A server under attack while an honest key uploads and processes: which of its requests fail, and how long they take.

Everything is on loopback. Strangers read and send slowly from other loopback addresses; a second key floods uploads and
the queue; a third one sends hostile media, so that these are decoded and not refused with the flood.
`python -m benchmarks.siege --minutes 10`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx
import psutil

from benchmarks.report import describe, machine, table
from tests.support.hostile_media import flac_silence, flac_with_comments, mp4_of_many_samples

MIB = 1024**2
SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "meeting.flac"
SECRETS = {name: f"{name}-secret-1234567890" for name in ("honest", "flooder", "poisoner")}
HONEST, FLOODER, POISONER = ({"X-API-Key": secret} for secret in SECRETS.values())
STRANGER, GUESSER = "127.0.0.66", "127.0.0.67"
ASSET = b"GET /assets/swagger-ui/swagger-ui-bundle.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
SLOW_BODY = (
    b"POST /audio/process?async=true HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: flooder-secret-1234567890\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 2000000000\r\n\r\n"
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF'
)
HEALTH_EVERY_S = 0.1
HONEST_EVERY_S = 5.0
JOB_LIMIT_S = 300.0
HEALTH_GOAL_S = 0.5
RESERVE_BYTES = 512 * MIB


@dataclass(slots=True)
class Figures:
    """What the honest key and the watcher saw."""

    honest_requests: int = 0
    honest_failures: list[str] = field(default_factory=list)
    jobs_done: int = 0
    peak_memory_bytes: int = 0
    least_free_bytes: int = sys.maxsize


@dataclass(slots=True)
class Health:
    """What the watcher of /health saw.

    Attributes:
        answers_s: how long each answer took.
        late_s: by how much each question was late, because the machine let the watcher itself wait.
    """

    answers_s: list[float] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def main() -> None:
    arguments = _arguments()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder, _server(Path(folder)) as (process, url):
        stop_at = time.time() + arguments.minutes * 60
        with _beside(_attack, url, stop_at) as attacks, _beside(_watch_health, url, stop_at) as watched:
            figures = asyncio.run(_watch(url, process, Path(folder), stop_at))
            attacked, health = attacks.get(timeout=60), watched.get(timeout=60)
        log = (Path(folder) / "log").read_text()
    print(describe(machine()))
    print(f"load average: {load_before:.1f} before, {os.getloadavg()[0]:.1f} at the end")
    failed = _report(figures, Health(**json.loads(health)), attacked, log, arguments.memory_mib * MIB)
    sys.exit(1 if failed else 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long (10; at most 120)")
    parser.add_argument("--memory-mib", type=int, default=3072, help="budget of the server and its children (3072)")
    parser.add_argument("--folder", type=Path, help="where the server keeps its files (the system's temporary folder)")
    arguments = parser.parse_args()
    arguments.minutes = min(arguments.minutes, 120)
    return arguments


@contextmanager
def _server(folder: Path) -> Iterator[tuple[psutil.Process, str]]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    settings = {
        "PORT": "0",
        "ORT_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "API_KEYS": " ".join(f"{name}:{secret}" for name, secret in SECRETS.items()),
        "API_ADMINS": "honest",
        "UPLOAD_DIR": str(folder / "uploads"),
        "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/rows.db",
        "DISK_HARD_LIMIT_BYTES": str(RESERVE_BYTES),
    }
    path = folder / "log"
    with path.open("w") as log:
        command = (sys.executable, "-m", "backend.cli", "serve")
        environment = {**kept, **settings, "PYTHONPATH": str(SAMPLE.parents[1])}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        yield psutil.Process(process.pid), _address(process, path)
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(40)
        process.kill()
        process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        text = log.read_text()
        if (found := re.search(r"on (http://\S+)", text)) and "the models are loaded" in text:
            return found[1]
        time.sleep(0.2)
    raise SystemExit(f"The server did not start:\n{log.read_text()[-2000:]}")


@contextmanager
def _beside(
    work: Callable[[str, float, multiprocessing.Queue[str]], None], url: str, stop_at: float
) -> Iterator[multiprocessing.Queue[str]]:
    """Work in a process of its own, so that it and the measurements do not delay each other."""
    spawning = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[str] = spawning.Queue()
    process = spawning.Process(target=work, args=(url, stop_at, results))
    process.start()
    try:
        yield results
    finally:
        process.terminate()
        process.join()


def _watch_health(url: str, stop_at: float, results: multiprocessing.Queue[str]) -> None:
    """Ask at fixed times, whether or not earlier questions are answered: a slow answer must not thin out the rest."""
    health = Health()

    async def watch() -> None:
        async with httpx.AsyncClient(base_url=url) as client, asyncio.TaskGroup() as questions:
            due = time.time()
            while due < stop_at:
                await asyncio.sleep(due - time.time())
                health.late_s.append(max(0.0, time.time() - due))
                questions.create_task(_ask_health(client, health))
                due += HEALTH_EVERY_S

    asyncio.run(watch())
    results.put(json.dumps(asdict(health)))


async def _watch(url: str, process: psutil.Process, folder: Path, stop_at: float) -> Figures:
    figures = Figures()
    async with httpx.AsyncClient(base_url=url, timeout=60) as honest:
        await asyncio.gather(
            _repeat(lambda: _upload(honest, figures), HONEST_EVERY_S, stop_at),
            _repeat(lambda: _measure(process, folder, figures), 0.5, stop_at),
        )
    return figures


async def _repeat(work: Callable[[], Awaitable[None]], every_s: float, stop_at: float) -> None:
    while time.time() < stop_at:
        await work()
        await asyncio.sleep(every_s)


async def _ask_health(client: httpx.AsyncClient, health: Health) -> None:
    began = time.perf_counter()
    try:
        answer = await client.get("/health", headers=HONEST, timeout=30)
    except httpx.HTTPError as error:
        health.failures.append(f"/health: {error!r}")
        return
    health.answers_s.append(time.perf_counter() - began)
    if answer.status_code != 200:
        health.failures.append(f"/health: {answer.status_code}")


async def _upload(client: httpx.AsyncClient, figures: Figures) -> None:
    """One recording from its upload to its transcript."""
    files = {"file": ("meeting.flac", SAMPLE.read_bytes())}
    job = await _ask(client, figures, "POST", "/audio/process?async=true", files=files)
    end = time.monotonic() + JOB_LIMIT_S
    while job and job["status"] not in ("completed", "failed", "cancelled"):
        if time.monotonic() > end:
            figures.honest_failures.append(f"{job['id']} took longer than {JOB_LIMIT_S:g} s")
            return
        await asyncio.sleep(0.5)
        job = await _ask(client, figures, "GET", f"/jobs/{job['id']}")
    if job and job["status"] != "completed":
        figures.honest_failures.append(f"{job['id']}: {job['status']}")
    elif job:
        figures.jobs_done += 1
        await _ask(client, figures, "GET", f"/conversations/{job['conversation_id']}")


async def _ask(
    client: httpx.AsyncClient, figures: Figures, method: str, path: str, **sent: object
) -> dict[str, str] | None:
    figures.honest_requests += 1
    try:
        answer = await client.request(method, path, headers=HONEST, **sent)  # type: ignore[arg-type]
    except httpx.HTTPError as error:
        figures.honest_failures.append(f"{method} {path}: {error!r}")
        return None
    if answer.status_code >= 300:
        figures.honest_failures.append(f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return None
    found: dict[str, str] = answer.json()
    return found


async def _measure(process: psutil.Process, folder: Path, figures: Figures) -> None:
    used = 0
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.Error):
            used += one.memory_info().rss
    figures.peak_memory_bytes = max(figures.peak_memory_bytes, used)
    figures.least_free_bytes = min(figures.least_free_bytes, shutil.disk_usage(folder).free)


def _attack(url: str, stop_at: float, results: multiprocessing.Queue[str]) -> None:
    """Of low priority: strangers compute on machines of their own."""
    os.nice(10)
    seen: Counter[str] = Counter()
    asyncio.run(_attack_at_once(url, stop_at, seen))
    results.put(json.dumps(seen))


async def _attack_at_once(url: str, stop_at: float, seen: Counter[str]) -> None:
    address = httpx.URL(url)
    host, port = address.host, address.port or 80
    transport = httpx.AsyncHTTPTransport(local_address=GUESSER)
    async with (
        httpx.AsyncClient(base_url=url, headers=FLOODER, timeout=30) as flooder,
        httpx.AsyncClient(base_url=url, headers=POISONER, timeout=60) as poisoner,
        httpx.AsyncClient(base_url=url, transport=transport, timeout=30) as guesser,
    ):
        attacks = [
            *[_attempts("slow reader", lambda: _read_nothing(host, port), stop_at, seen) for _ in range(100)],
            *[_attempts("slow writer", lambda: _write_slowly(host, port), stop_at, seen) for _ in range(40)],
            *[_attempts("flood of uploads", lambda: _flood(flooder), stop_at, seen) for _ in range(3)],
            *[_attempts("open uploads", lambda: _open_upload(flooder), stop_at, seen) for _ in range(2)],
            *[_attempts("hostile media", lambda: _send_hostile(poisoner), stop_at, seen) for _ in range(2)],
            *[_attempts("wrong key", lambda: _guess(guesser), stop_at, seen) for _ in range(5)],
        ]
        await asyncio.gather(*attacks)


async def _attempts(name: str, attempt: Callable[[], Awaitable[object]], stop_at: float, seen: Counter[str]) -> None:
    while (left_s := stop_at - time.time()) > 0:
        try:
            async with asyncio.timeout(left_s):
                seen[f"{name}: {await attempt()}"] += 1
        except (OSError, httpx.HTTPError, TimeoutError):
            seen[f"{name}: cut off"] += 1
        await asyncio.sleep(0.2)


async def _read_nothing(host: str, port: int) -> str:
    with socket.socket() as stranger:
        stranger.setblocking(False)
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stranger.bind((STRANGER, 0))
        loop = asyncio.get_running_loop()
        await loop.sock_connect(stranger, (host, port))
        await loop.sock_sendall(stranger, ASSET * 8)
        while True:
            await asyncio.sleep(1)
            await loop.sock_sendall(stranger, b"\r\n")


async def _write_slowly(host: str, port: int) -> str:
    reader, writer = await asyncio.open_connection(host, port, local_addr=(STRANGER, 0))
    try:
        writer.write(SLOW_BODY)
        while not reader._buffer:  # type: ignore[attr-defined]  # an answer before the body's end is a refusal
            writer.write(bytes(1200))
            await writer.drain()
            await asyncio.sleep(1)
        return (await reader.readline())[9:12].decode()
    finally:
        writer.close()


async def _flood(client: httpx.AsyncClient) -> int:
    files = {"file": ("meeting.flac", SAMPLE.read_bytes())}
    return (await client.post("/audio/process?async=true", files=files)).status_code


async def _open_upload(client: httpx.AsyncClient) -> int:
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(2048 * MIB)}
    return (await client.post("/uploads", headers=headers)).status_code


_HOSTILE = (
    flac_silence(600, channels=8),
    mp4_of_many_samples(1_000_000),
    flac_with_comments(400_000),
    b"RIFF" + os.urandom(200_000),
    b"ID3" + bytes(9999),
)


async def _send_hostile(client: httpx.AsyncClient) -> str:
    async def each() -> AsyncIterator[int]:
        for media in _HOSTILE:
            files = {"file": ("a.wav", media)}
            yield (await client.post("/audio/process?async=true", files=files)).status_code

    return " ".join([str(status) async for status in each()])


async def _guess(client: httpx.AsyncClient) -> int:
    return (await client.get("/conversations", headers={"X-API-Key": os.urandom(12).hex()})).status_code


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values) or [float("inf")]
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _report(figures: Figures, health: Health, attacked: str, log: str, budget_bytes: int) -> bool:
    failures = figures.honest_failures + health.failures
    p99_s = _percentile(health.answers_s, 0.99)
    goals = [
        ("failed requests of the honest key", str(len(failures)), "0", not failures),
        ("p99 of /health, ms", f"{p99_s * 1000:.0f}", f"{HEALTH_GOAL_S * 1000:.0f}", p99_s <= HEALTH_GOAL_S),
        (
            "peak memory, MiB",
            f"{figures.peak_memory_bytes / MIB:.0f}",
            f"{budget_bytes / MIB:.0f}",
            figures.peak_memory_bytes <= budget_bytes,
        ),
        (
            "least free disk, MiB",
            f"{figures.least_free_bytes / MIB:.0f}",
            f"{RESERVE_BYTES / MIB:.0f}",
            figures.least_free_bytes >= RESERVE_BYTES,
        ),
        ("tracebacks in the log", str(log.count("Traceback")), "0", "Traceback" not in log),
    ]
    print(table(("what", "measured", "goal", "met"), [(*row[:3], "yes" if row[3] else "NO") for row in goals]))
    print(f"\nhonest: {figures.honest_requests} requests, {figures.jobs_done} recordings processed")
    print(
        f"/health: {len(health.answers_s)} answers, median {_percentile(health.answers_s, 0.5) * 1000:.0f} ms, "
        f"most {_percentile(health.answers_s, 1):.2f} s; p99 of the watcher's own delay "
        f"{_percentile(health.late_s, 0.99) * 1000:.0f} ms"
    )
    for name, count in sorted(json.loads(attacked).items()):
        print(f"  {name}: {count} times")
    for failure in failures[:20]:
        print(f"FAILED {failure}")
    return not all(row[3] for row in goals)


if __name__ == "__main__":
    main()
