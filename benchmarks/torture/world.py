"""One server with its disk, its database and its bucket, and the clients that use it while things break."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx

from benchmarks.torture.disk import Disk, Folder
from benchmarks.torture.ledger import Outcome, Sent, Tally
from benchmarks.torture.nursery import Child, Nursery, Order
from benchmarks.torture.rows import Rows, read_rows
from tests.fixtures_storage import s3_client
from tests.media import wav_bytes
from tests.servers import FaultProxy, S3Server

START_WITHIN_S, SETTLE_WITHIN_S, ANSWER_WITHIN_S = 30.0, 90.0, 45.0
PIECE_BYTES = 16 * 1024


class Bucket:
    """A bucket behind a proxy that misbehaves, and the back door to it."""

    def __init__(self, server: S3Server, name: str) -> None:
        self.name = name
        self.proxy = FaultProxy(server)
        self.client: Any = s3_client(server)

    def open(self) -> None:
        self.client.create_bucket(Bucket=self.name)
        self.proxy.__enter__()

    def close(self) -> None:
        self.proxy.__exit__()
        self.client.close()

    def keys(self) -> dict[str, int]:
        """Every key and its size."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", ())}

    def unfinished(self) -> list[str]:
        """Keys of uploads in parts that were not finished."""
        listed = self.client.list_multipart_uploads(Bucket=self.name)
        return [item["Key"] for item in listed.get("Uploads", ())]

    def read(self, locator: str) -> bytes:
        key = locator.removeprefix(f"s3://{self.name}/")
        data: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return data


class World:
    """
    Args:
        folder: for everything.
        disk: where uploads and rows are.
        bucket: S3; None: everything is local.
        seed: decides what is sent.
        fsync: False: Python makes nothing durable.
    """

    def __init__(
        self,
        folder: Path,
        disk: Disk | Folder,
        bucket: Bucket | None,
        nursery: Nursery,
        seed: str,
        *,
        fsync: bool = True,
    ) -> None:
        self.folder, self.disk, self.bucket = folder, disk, bucket
        self.random = random.Random(seed)
        self.tally = Tally()
        self.fault = ""
        self.sent: list[Sent] = []
        self.database = disk.root / "rows.db"
        self._nursery, self._fsync = nursery, fsync
        self._pipe, self._log = folder / "pipe", folder / "server.log"
        self._server: Child | None = None
        self._http = httpx.AsyncClient(
            timeout=ANSWER_WITHIN_S, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False
        )

    # -- the server ---------------------------------------------------------------------------------------------

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
        os.mkfifo(self._pipe)
        self._log.touch()

    async def close(self) -> None:
        if self.alive:
            await self.kill(count=False)
        await self._http.aclose()
        if self.bucket:
            await asyncio.to_thread(self.bucket.close)
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
            if found and await self._answers(found.group(1)):
                self.tally.starts_s.append(time.monotonic() - begun)
                self._http.base_url = httpx.URL(found.group(1))
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
        output, status = self.folder / "report.json", self.folder / "status"
        status.unlink(missing_ok=True)
        order = self._order([*arguments, "--json"], output=str(output), status=str(status))
        child = await self._nursery.fork(order)
        if not await child.wait(300):
            raise RuntimeError(f"{arguments} does not end")
        if not status.exists():
            raise RuntimeError(f"{arguments} died:\n{self.log_tail()}")
        text = output.read_text()
        return int(status.read_text()), json.loads(text) if text else None

    def log_tail(self, characters: int = 4000) -> str:
        return self._log.read_text(errors="replace")[-characters:]

    def _order(self, command: list[str], **more: Any) -> Order:
        return Order(command, self._environment(), str(self.folder), str(self._log), fsync=self._fsync, **more)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        settings = kept | {
            "TMPDIR": str(self.folder),
            "PORT": "0",
            "UPLOAD_DIR": str(self.disk.uploads),
            "DATABASE_URL": f"sqlite+aiosqlite:///{self.database}",
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

    async def _answers(self, url: str) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return (await self._http.get(f"{url}/health/live", timeout=2)).status_code == 204
        return False

    # -- clients ------------------------------------------------------------------------------------------------

    def recording(self, size_bytes: int) -> bytes:
        """Bytes that no other recording has."""
        return wav_bytes(self.random.randbytes(size_bytes))

    async def upload(self, content: bytes, *, name: str = "meeting.wav", pause_s: float = 0.0) -> Sent:
        """Send a recording, all at once or slowly; half of the clients wait for the transcript."""
        sent = Sent(hashlib.sha256(content).hexdigest(), len(content), self.tally.rounds, self.fault)
        self.sent.append(sent)
        path = f"/audio/process{self.random.choice(('', '?async=true'))}"
        headers = {"Content-Type": "multipart/form-data; boundary=torture"}
        try:
            answer = await self._http.post(path, content=_body(content, name, pause_s), headers=headers)
        except httpx.HTTPError:
            return sent
        sent.status = answer.status_code
        if answer.status_code in (200, 202):
            sent.outcome, sent.conversation_id = Outcome.ACCEPTED, answer.json()["conversation_id"]
        else:
            sent.outcome = Outcome.REFUSED
        return sent

    async def until_accepted(self, seconds: float) -> None:
        """Wait until some upload of this round has its answer, but not for ever."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.alive:
            if any(sent.outcome == Outcome.ACCEPTED for sent in self.sent if sent.round == self.tally.rounds):
                return
            await asyncio.sleep(0.02)

    async def delete(self, sent: Sent) -> None:
        sent.deleting = True
        with contextlib.suppress(httpx.HTTPError):
            answer = await self._http.delete(f"/conversations/{sent.conversation_id}")
            sent.deleted = answer.status_code in (202, 204)
            if answer.status_code == 404:
                self.tally.complain("lost", f"{sent.conversation_id} was accepted, completed, and is not found")

    async def read(self, sent: Sent, *, direct: bool = True) -> int | None:
        """Fetch a recording and look whether it is the right one.

        Args:
            direct: follow a redirect to S3; without, be content with it.

        Returns:
            The status; None if nobody answered.
        """
        try:
            answer = await self._http.get(f"/conversations/{sent.conversation_id}/audio", follow_redirects=False)
            if answer.status_code == 307 and direct:
                answer = await self._http.get(answer.headers["location"])
        except httpx.HTTPError:
            return None
        if answer.status_code == 200 and hashlib.sha256(answer.content).hexdigest() != sent.sha256:
            self.tally.complain("served_wrong", f"{sent.conversation_id}: other bytes than were sent")
        if answer.status_code == 404 and not sent.deleting:
            self.tally.complain("served_wrong", f"{sent.conversation_id}: {answer.text}")
        return answer.status_code

    async def post(self, path: str, body: dict[str, object] | None = None) -> Any:
        """What an operator asks for; None if it cannot be had now."""
        with contextlib.suppress(httpx.HTTPError):
            answer = await self._http.post(path, json=body or {})
            return answer.json() if answer.is_success else None
        return None

    def some(self, count: int, wanted: Callable[[Sent], bool] = lambda sent: sent.readable) -> list[Sent]:
        found = [sent for sent in self.sent if wanted(sent)]
        return self.random.sample(found, min(count, len(found)))

    # -- what the rows say --------------------------------------------------------------------------------------

    async def rows(self) -> Rows:
        for _ in range(50):
            try:
                return await asyncio.to_thread(read_rows, self.database)
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
            if any(item.parked for items in rows.objects.values() for item in items):
                await self.post("/storage/drain", {"retry_parked": True, "max_seconds": 1})
            if time.monotonic() > end:
                self.tally.complain("stuck", f"{waiting} left after {SETTLE_WITHIN_S} s\n{self.log_tail()}")
                break
            await asyncio.sleep(0.1)
        self.tally.recoveries_s.append(time.monotonic() - begun)
        self._note_settled(rows)

    def _note_settled(self, rows: Rows) -> None:
        for sent in self.sent:
            job = rows.jobs.get(sent.conversation_id or "")
            sent.settled = sent.settled or bool(job and job.status == "completed")


async def _body(content: bytes, name: str, pause_s: float) -> AsyncIterator[bytes]:
    disposition = f'Content-Disposition: form-data; name="file"; filename="{name}"'
    yield f"--torture\r\n{disposition}\r\nContent-Type: audio/wav\r\n\r\n".encode()
    size = PIECE_BYTES if pause_s else 1024 * 1024
    for start in range(0, len(content), size):
        yield content[start : start + size]
        if pause_s:
            await asyncio.sleep(pause_s)
    yield b"\r\n--torture--\r\n"
