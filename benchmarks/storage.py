"""How fast storage is, as ratios of what the disk, the store and the bare clients can do in the same run.

    python -m benchmarks.storage                    # all parts
    python -m benchmarks.storage --only drain verify

S3 is OpenStack Swift on loopback, which shares the processor with everything else: the ratios tell something, the
absolute figures little. Uploads over HTTP to the local disk are measured by `benchmarks.uploads`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from boto3.s3.transfer import TransferConfig
from sqlalchemy import insert

from backend.database.migrate import migrate
from backend.database.models import Conversation, StoredObjectRow
from backend.database.session import Database
from backend.domain.states.conversations import ConversationStatus
from backend.observability.metrics import Metrics
from backend.services.lifecycle.drain import DrainService
from backend.services.reconciliation import ReconciliationService, Scope
from backend.services.storage import StorageService
from benchmarks.report import describe, machine, table
from benchmarks.storage_bench import (
    BLOCK_BYTES,
    GB,
    Bench,
    Seconds,
    aws_copy,
    bare_client,
    bare_put,
    bare_save,
    ms,
    rates,
    take,
)
from benchmarks.storage_http import latency, memory
from tests.support.servers import running_swift, swift_venv

SAVES, SAVE_BYTES, CLIENTS = 200, 100_000, 32
DRAINED, DRAINED_BYTES = 1000, 20_000
FILES, FILE_BYTES = 100_000, 1000
AT = datetime(2026, 1, 15, tzinfo=UTC)


def main() -> None:
    options = parsed_options()
    venv = swift_venv()
    if venv is None:
        sys.exit("OpenStack Swift is not installed: `make test-servers` does it.")
    print(describe(machine()), flush=True)
    folder = Path(tempfile.mkdtemp(prefix="storage-", dir=options.folder))
    try:
        (folder / "swift").mkdir()
        with running_swift(venv, folder / "swift") as swift:
            bench = Bench(folder, swift, options.rounds, options.scale)
            for name in options.only or PARTS:
                print(f"\n{asyncio.run(PARTS[name](bench))}\n\nload average {os.getloadavg()[0]:.1f}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts (all)")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (3)")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes and counts (1)")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk to measure (here)")
    return parser.parse_args()


async def local_save(bench: Bench) -> str:
    """From the last byte of a stream to the object in its place."""
    size, rows = int(2 * GB * bench.scale), []
    with bench.source(size) as source:
        async with StorageService(bench.local("save")) as storage:
            for number in range(bench.rounds):
                stream = _Stream(source)
                begun = time.perf_counter()
                async with storage.spool(stream.blocks()) as spooled:
                    durable = time.perf_counter()
                    stored = await storage.save_audio_file(spooled, f"conv_{number}", "big.wav")
                    saved = time.perf_counter()
                rate = f"{size / 1e6 / (durable - begun):.0f}"
                rows.append((number + 1, rate, ms(durable - stream.ended), ms(saved - durable)))
                await storage.delete(stored.locator)
    head = ("round", "into the spool, MB/s", "last byte to durable, ms", "save of the spooled file, ms")
    return f"Local save of {size / GB:.1f} GB\n\n{table(head, rows)}"


async def large_s3(bench: Bench) -> str:
    """One large object to S3: Aperta, `aws s3 cp`, bare boto3 with the same parts."""
    size, config, seconds = int(GB * bench.scale), bench.s3("large"), Seconds()
    bucket, client, aws = bench.bucket("large"), bare_client(bench.swift), shutil.which("aws")
    parts = TransferConfig(multipart_threshold=16 << 20, multipart_chunksize=16 << 20, max_concurrency=4)
    with bench.source(size) as source:
        async with StorageService(config) as storage, storage.spool(_Stream(source).blocks()) as spooled:
            for number in range(bench.rounds):
                began = time.perf_counter()
                stored = await storage.save_audio_file(spooled, f"conv_{number}", "big.wav")
                seconds.setdefault("Aperta", []).append(time.perf_counter() - began)
                assert stored.store == "s3", stored.warnings
                await storage.delete(stored.locator)
                if aws:
                    take(seconds, "`aws s3 cp`", lambda: aws_copy(aws, bench.swift, source, bucket))
                take(seconds, "boto3 alone", lambda: client.upload_file(str(source), bucket, "bare", Config=parts))
    base = "`aws s3 cp`" if aws else "boto3 alone"
    return f"S3 upload of {size / GB:.1f} GB\n\n{rates(seconds, size / 1e6, 'MB', base)}"


async def small_s3(bench: Bench) -> str:
    """Many small saves at once: Aperta's, each spooled, fsynced, sent and looked at, and bare boto3."""
    count, seconds = int(SAVES * bench.scale), Seconds()
    data = [os.urandom(SAVE_BYTES) for _ in range(count)]
    bucket, client = bench.bucket("small"), bare_client(bench.swift)
    for number in range(bench.rounds):
        for threads in (8, CLIENTS):
            async with StorageService(bench.s3("small", s3_max_concurrency=threads)) as storage:
                began = time.perf_counter()
                await _save_all(storage, data, f"{number}-{threads}")
                took_s = time.perf_counter() - began
            seconds.setdefault(f"Aperta, S3_MAX_CONCURRENCY={threads}", []).append(took_s)
        for name, work in (("HEAD, PUT, HEAD", bare_save), ("PUT alone", bare_put)):
            keys = [f"bare/{number}/{work.__name__}/{item}" for item in range(count)]
            with ThreadPoolExecutor(CLIENTS) as pool:
                many = pool.map(work, [client] * count, [bucket] * count, keys, data)
                take(seconds, f"boto3 in {CLIENTS} threads: {name}", partial(list, many))
    title = f"{count} saves of {SAVE_BYTES // 1000} KB by {CLIENTS} clients"
    return f"{title}\n\n{rates(seconds, count, 'saves', f'boto3 in {CLIENTS} threads: HEAD, PUT, HEAD')}"


async def drain(bench: Bench) -> str:
    """Objects per second from the folder to S3, and what bare boto3 does with the same requests."""
    count, seconds = int(DRAINED * bench.scale), Seconds()
    config, client, data = bench.s3("drain"), bare_client(bench.swift), os.urandom(DRAINED_BYTES)
    url = f"sqlite+aiosqlite:///{bench.folder}/drain.db"
    await migrate(url)
    database = Database(url)
    for threads in (8, CLIENTS):
        await _plant(database, bench.folder / "drain", count, f"drain{threads}", DRAINED_BYTES)
        async with StorageService(config.model_copy(update={"drain_concurrency": threads})) as storage:
            began = time.perf_counter()
            report = await DrainService(
                storage, storage.parts.mover, database, Metrics(), concurrency=threads
            ).drain_all()
            seconds[f"drain, DRAIN_CONCURRENCY={threads}"] = [time.perf_counter() - began]
        assert report.moved == count, report
        keys = [f"bare/{threads}/{number}" for number in range(count)]
        with ThreadPoolExecutor(threads) as pool:
            many = pool.map(bare_save, [client] * count, [bench.bucket("drain")] * count, keys, [data] * count)
            take(seconds, f"boto3 in {threads} threads: HEAD, PUT, HEAD", partial(list, many))
    await database.close()
    title = f"Drain of {count} objects of {DRAINED_BYTES // 1000} KB"
    return f"{title}\n\n{rates(seconds, count, 'objects', 'boto3 in 8 threads: HEAD, PUT, HEAD')}"


async def verify(bench: Bench) -> str:
    """All rows and all files of a large folder held against each other."""
    count, rows = int(FILES * bench.scale), []
    url = f"sqlite+aiosqlite:///{bench.folder}/verify.db"
    await migrate(url)
    database = Database(url)
    await _plant(database, bench.folder / "verify", count, "verify", FILE_BYTES)
    async with StorageService(bench.local("verify")) as storage:
        parts = storage.parts
        service = ReconciliationService(parts.stores, parts.spool, parts.space, database)
        for deep in (False, True):
            report = await service.verify(Scope(deep=deep))
            assert (report.exit_code, report.checked.rows, report.checked.objects) == (0, count, count), report
            name = "`verify --deep`" if deep else "`verify`"
            rows.append((name, f"{report.seconds:.1f}", f"{count / report.seconds:.0f}"))
    await database.close()
    return f"Verify of {count} local objects of {FILE_BYTES} bytes\n\n{table(('', 'seconds', 'objects/s'), rows)}"


PARTS: dict[str, Callable[[Bench], Coroutine[None, None, str]]] = {
    "local": local_save,
    "large": large_s3,
    "small": small_s3,
    "drain": drain,
    "verify": verify,
    "memory": memory,
    "latency": latency,
}


class _Stream:
    """A file as an upload; `ended` is when its last byte was handed over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.ended = 0.0

    async def blocks(self) -> AsyncIterator[bytes]:
        with self._path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK_BYTES):
                yield block
        self.ended = time.perf_counter()


async def _save_all(storage: StorageService, data: list[bytes], name: str) -> None:
    left = iter(enumerate(data))

    async def client() -> None:
        for number, content in left:
            stored = await storage.save_audio_file(content, f"conv_{name}_{number}", "small.wav")
            assert stored.store == "s3", stored.warnings

    await asyncio.gather(*(client() for _ in range(CLIENTS)))


async def _plant(database: Database, folder: Path, count: int, name: str, size: int) -> None:
    """Conversations of one object each, rows and files, as saves would leave them."""
    conversations, objects = [], []
    for number in range(count):
        identity, data = f"conv_{name}_{number}", os.urandom(size)
        path = folder / identity / "2026/01/15/meeting.wav"
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        conversations.append(_conversation(identity, path))
        objects.append(_object(identity, path, data))
    async with database.transaction() as session:
        await session.execute(insert(Conversation), conversations)
        await session.execute(insert(StoredObjectRow), objects)


def _conversation(identity: str, path: Path) -> dict[str, object]:
    done = {"status": ConversationStatus.COMPLETED, "created_at": AT, "completed_at": AT}
    return {"id": identity, "filename": path.name, "recording_url": str(path), **done}


def _object(identity: str, path: Path, data: bytes) -> dict[str, object]:
    return {
        "conversation_id": identity,
        "kind": "audio",
        "store": "local",
        "locator": str(path),
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "content_type": "audio/wav",
        "created_at": AT,
    }


if __name__ == "__main__":
    main()
