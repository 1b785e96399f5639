"""The durable engine when its own database fails at the wrong moment."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backend.services.jobs.durable import engine as durable
from backend.services.jobs.durable.engine import DurableEngine
from backend.services.jobs.durable.values import QueueLimit

pytestmark = pytest.mark.anyio

QUEUE = "work"


def rename(folder: Path, old: str, new: str) -> None:
    with closing(sqlite3.connect(folder / "rows.jobs.db", timeout=10)) as connection, connection:
        connection.execute(f"ALTER TABLE {old} RENAME TO {new}")


async def test_a_workflow_whose_end_could_not_be_written_is_known_and_may_begin_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "FORSAKEN_AFTER_S", 0.3)
    begun: list[str] = []
    engine = DurableEngine(f"sqlite+aiosqlite:///{tmp_path}/rows.db", executor_id="this", version="1")

    async def work(workflow_id: str) -> None:
        begun.append(workflow_id)
        if len(begun) == 1:
            rename(tmp_path, "workflow_status", "away")
            raise OSError("and so the end of it cannot be written either")

    engine.register("work", work)
    await engine.start({QUEUE: QueueLimit(1, poll_s=0.05)}, [QUEUE])
    try:
        await engine.enqueue("work", "w1", QUEUE)
        while not begun:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        rename(tmp_path, "away", "workflow_status")
        assert [(item.id, item.forsaken) for item in await engine.pending()] == [("w1", False)]
        await asyncio.sleep(0.4)
        [forsaken] = await engine.pending()
        assert forsaken.forsaken and forsaken.queue == QUEUE
        await engine.resume("w1", QUEUE)
        while not (await engine.states(["w1"]))["w1"].ended:
            await asyncio.sleep(0.02)
        assert begun == ["w1", "w1"] and not await engine.pending()
    finally:
        await engine.stop()


async def test_a_workflow_that_runs_is_not_forsaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "FORSAKEN_AFTER_S", 0.1)
    begun, go_on = asyncio.Event(), asyncio.Event()
    engine = DurableEngine(f"sqlite+aiosqlite:///{tmp_path}/rows.db", executor_id="this", version="1")

    async def work(_workflow_id: str) -> None:
        begun.set()
        await go_on.wait()

    engine.register("work", work)
    await engine.start({QUEUE: QueueLimit(1, poll_s=0.05)}, [QUEUE])
    try:
        await engine.enqueue("work", "w1", QUEUE)
        await begun.wait()
        for _ in range(3):
            assert [item.forsaken for item in await engine.pending()] == [False]
            await asyncio.sleep(0.15)
        go_on.set()
    finally:
        await engine.stop()
