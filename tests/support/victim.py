"""A process that drains or deletes and kills itself on the way, as kill -9 or a power cut would.

    python -m tests.support.victim drain copied 2         ends when the second object has been copied
    python -m tests.support.victim delete buried 1 conv_X

Settings come from the environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from backend.config import Settings
from backend.database.session import Database
from backend.observability.metrics import Metrics
from backend.services.conversations.deletion import DeletionService
from backend.services.lifecycle.drain import DrainService
from backend.services.storage import StorageService
from tests.support.processes import environment
from tests.support.servers import S3Server

DRAIN_POINTS = ("verified", "copied", "switched", "deleted")
DELETE_POINTS = ("buried", "one object gone", "all objects gone")


def die_at(owner: Any, name: str, *, after: bool, occurrence: int) -> None:
    """Kill this process when a method is called, or has returned, for the n-th time."""
    real, calls = getattr(owner, name), 0

    async def deadly(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        last = calls == occurrence
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = await real(*arguments, **more)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


Victim = Callable[..., Awaitable[int]]


def victim_of(server: S3Server, bucket: str, folder: Path) -> Victim:
    """How to run a victim on the uploads and rows in a folder: with its arguments; gives its exit status."""
    settings = {
        "S3_BUCKET_NAME": bucket,
        "S3_ENDPOINT_URL": server.url,
        "S3_REGION": "us-east-1",
        "S3_SERVER_SIDE_ENCRYPTION": "none",
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
    }

    async def run(*arguments: str, kill_after_s: float | None = None) -> int:
        command = (sys.executable, "-m", "tests.support.victim", *arguments)
        process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment(folder, **settings))
        try:
            return await asyncio.wait_for(process.wait(), kill_after_s or 60)
        except TimeoutError:
            process.kill()
            return await process.wait()

    return run


async def main(what: str, point: str, occurrence: int, *conversation_ids: str) -> None:
    settings = Settings()
    database = Database(settings.database_url)
    async with StorageService(settings.storage) as storage:
        parts = storage.parts
        owner, name, after = {
            "verified": (parts.mover, "copy", False),
            "copied": (parts.mover, "copy", True),
            "switched": (storage, "delete", False),
            "deleted": (storage, "delete", True),
            "buried": (storage, "delete", False),
            "one object gone": (storage, "delete", True),
            "all objects gone": (storage, "delete_all", True),
            "never": (storage, "close", False),
        }[point]
        die_at(owner, name, after=after, occurrence=occurrence)
        if what == "drain":
            await DrainService(storage, parts.mover, database, Metrics()).drain_all(concurrency=2)
        for conversation_id in conversation_ids:
            await DeletionService(storage, parts.stores, parts.accepted, database).delete(conversation_id)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:]))
