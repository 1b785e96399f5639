"""One server with its disk, its database and its bucket: started, stopped, killed, brought to rest."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

from benchmarks.torture.bucket import Bucket
from benchmarks.torture.clients import Clients
from benchmarks.torture.databases import PostgresDatabase, SqliteDatabase
from benchmarks.torture.disk import Disk, Folder
from benchmarks.torture.ledger import Outcome
from benchmarks.torture.nursery import Child, Nursery, Order
from benchmarks.torture.rows import Rows

START_WITHIN_S, SETTLE_WITHIN_S = 30.0, 90.0


class World(Clients):
    """
    Args:
        folder: for everything.
        disk: where uploads and rows are.
        bucket: S3; None: everything is local.
        seed: decides what happens.
        fsync: False: Python makes nothing durable.
    """

    def __init__(
        self,
        folder: Path,
        disk: Disk | Folder,
        bucket: Bucket | None,
        database: SqliteDatabase | PostgresDatabase,
        nursery: Nursery,
        seed: str,
        *,
        fsync: bool = True,
    ) -> None:
        super().__init__(seed)
        self.folder, self.disk, self.bucket, self.database = folder, disk, bucket, database
        self._nursery, self._fsync = nursery, fsync
        self._pipe, self._log = folder / "pipe", folder / "server.log"
        self._server: Child | None = None

    @property
    def server(self) -> Child:
        assert self._server is not None
        return self._server

    @property
    def alive(self) -> bool:
        return self._server is not None and self._server.alive

    async def open(self) -> None:
        await asyncio.to_thread(self.disk.open)
        if self.bucket:
            await asyncio.to_thread(self.bucket.open)
        await asyncio.to_thread(self.database.open)
        os.mkfifo(self._pipe)
        self._log.touch()
        await self._run(["migrate"])

    async def close(self) -> None:
        if self.alive:
            await self.kill(count=False)
        await self.hang_up()
        if self.bucket:
            await asyncio.to_thread(self.bucket.close)
        await asyncio.to_thread(self.database.close)
        await asyncio.to_thread(self.disk.close)

    async def start(self) -> None:
        """Start a server and wait until it answers."""
        begun = time.monotonic()
        before = self._log.stat().st_size
        self._server = await self._nursery.fork(self._order(["serve"], pipe=str(self._pipe)))
        end = begun + START_WITHIN_S
        while time.monotonic() < end and self.server.alive:
            with self._log.open() as log:
                log.seek(before)
                found = re.search(r"on (http://\S+)", log.read())
            if found and await self.answers(found.group(1)):
                self.tally.starts_s.append(time.monotonic() - begun)
                self.turn_to(found.group(1))
                return
            await asyncio.sleep(0.02)
        raise RuntimeError(f"the server did not start:\n{self.log_tail()}")

    async def stop(self) -> None:
        """As a service manager does it."""
        self.server.signal(signal.SIGTERM)
        if not await self.server.wait(40):
            self.tally.complain("stuck", f"a server did not stop\n{self.log_tail()}")
            await self.kill(count=False)

    async def kill(self, *, count: bool = True) -> None:
        self.server.signal_all(signal.SIGKILL)
        if not await self.server.wait(20):
            raise RuntimeError("a process survives SIGKILL")
        self.tally.kills += count

    async def died(self, point: str | None, seconds: float) -> bool:
        """Whether the server killed itself within so long, at the point it was told."""
        dead = await self.server.wait(seconds)
        self.tally.kills += dead
        if dead and point:
            self.tally.deaths[point] += 1
        return dead

    def doom(self, point: str, occurrence: int) -> None:
        """Let the server kill itself at a point."""
        # For reading too, so that opening does not wait for a server that has just died.
        pipe = os.open(self._pipe, os.O_RDWR | os.O_NONBLOCK)
        os.write(pipe, (json.dumps([point, occurrence]) + "\n").encode())
        os.close(pipe)

    async def lose_power(self) -> None:
        assert isinstance(self.disk, Disk)
        self.server.signal_all(signal.SIGSTOP)
        await asyncio.to_thread(self.disk.snapshot)
        await self.kill(count=False)
        await asyncio.to_thread(self.disk.lose_power)
        self.tally.power_losses += 1

    async def aperta(self, *arguments: str) -> tuple[int, Any]:
        """Run a command while no server runs; its exit status and what its JSON says."""
        status, text = await self._run([*arguments, "--json"])
        return status, json.loads(text) if text else None

    def log_tail(self, characters: int = 4000) -> str:
        return self._log.read_text(errors="replace")[-characters:]

    async def _run(self, command: list[str]) -> tuple[int, str]:
        output, status = self.folder / "output", self.folder / "status"
        status.unlink(missing_ok=True)
        child = await self._nursery.fork(self._order(command, output=str(output), status=str(status)))
        if not await child.wait(300):
            raise RuntimeError(f"{command} does not end")
        if not status.exists():
            raise RuntimeError(f"{command} died:\n{self.log_tail()}")
        return int(status.read_text()), output.read_text()

    def _order(self, command: list[str], **more: Any) -> Order:
        return Order(command, self._environment(), str(self.folder), str(self._log), fsync=self._fsync, **more)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        settings = kept | {
            "TMPDIR": str(self.folder),
            "PORT": "0",
            "UPLOAD_DIR": str(self.disk.uploads),
            "DATABASE_URL": self.database.url,
            "DISK_SOFT_LIMIT_BYTES": "0",
            "DISK_HARD_LIMIT_BYTES": "0",
            "JOBS_AT_ONCE": "6",
            "QUEUE_POLL_S": "0.05",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if self.bucket:
            settings |= {
                "S3_BUCKET_NAME": self.bucket.name,
                "S3_ENDPOINT_URL": self.bucket.proxy.server.url,
                "S3_REGION": "us-east-1",
                "S3_SERVER_SIDE_ENCRYPTION": "none",
                "AWS_ACCESS_KEY_ID": self.bucket.proxy.server.access_key,
                "AWS_SECRET_ACCESS_KEY": self.bucket.proxy.server.secret_key,
                "S3_CONNECT_TIMEOUT_S": "0.5",
                "S3_READ_TIMEOUT_S": "1.5",
                "S3_SAVE_TIMEOUT_S": "4",
                "S3_RETRY_AFTER_S": "0.5",
            }
        return settings

    async def until_accepted(self, seconds: float) -> None:
        """Wait until some upload of this round has its answer, but not for ever."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.alive:
            if any(sent.outcome == Outcome.ACCEPTED for sent in self.sent if sent.round == self.tally.rounds):
                return
            await asyncio.sleep(0.02)

    async def rows(self) -> Rows:
        for _ in range(50):
            try:
                return await asyncio.to_thread(self.database.read)
            except sqlite3.OperationalError:
                await asyncio.sleep(0.1)
        raise RuntimeError("the rows cannot be read")

    async def settle(self, since: float | None = None) -> None:
        """Wait until nothing waits any more; failed jobs are tried again by hand, once.

        Args:
            since: when the recovery began.
        """
        begun = since or time.monotonic()
        retried: set[str] = set()
        end = time.monotonic() + SETTLE_WITHIN_S
        while True:
            rows = await self.rows()
            waiting = dict(rows.waiting)
            if self.bucket is None:
                waiting.pop("drain", None)
            failed = [job for job in rows.jobs.values() if job.status == "failed" and job.id not in retried]
            if not waiting and not failed:
                break
            for job in failed:
                retried.add(job.id)
                if job.recording is not None and await self.post(f"/jobs/{job.id}/retry"):
                    self.tally.retried += 1
                    self.tally.complaints.append(f"note: after {self.fault!r} a job had to be tried again: {job.error}")
            if any(item.parked for items in rows.objects.values() for item in items):
                await self.post("/storage/drain", {"retry_parked": True, "max_seconds": 1})
            if time.monotonic() > end or not self.alive:
                why = f"left after {SETTLE_WITHIN_S} s" if self.alive else "left: the server has died by itself"
                self.tally.complain("stuck", f"{waiting} {why}\n{self.log_tail()}")
                break
            await asyncio.sleep(0.1)
        self.tally.recoveries_s.append(time.monotonic() - begun)
        self._note_settled(rows)

    def _note_settled(self, rows: Rows) -> None:
        for sent in self.sent:
            job = rows.jobs.get(sent.conversation_id or "")
            sent.settled = sent.settled or bool(job and job.status == "completed")
