"""Periodic work: what runs leave behind, which process of a fleet does it, and what can be seen of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import func, select, text, update

from backend.config import Settings
from backend.database.migrate import migrate
from backend.database.models import ScheduleRun
from backend.database.session import Database
from backend.domain.lifecycle import SCHEDULE_RUNS, Cadence
from backend.errors import DatabaseUnavailable, StorageUnavailable
from backend.services.jobs.heartbeat import ProcessIdentity
from backend.services.jobs.queue import JobQueue
from backend.services.jobs.schedule.log import IDLE, Outcome, ScheduleLog
from backend.services.jobs.schedule.scheduler import Scheduler
from backend.services.jobs.schedule.table import Entry, Kind, Place, open_schedule
from backend.wiring.services import Services
from tests.conftest import SAMPLE, api, send

pytestmark = pytest.mark.anyio

TABLE = open_schedule(upload_expires_s=86_400, jobs_keep_days=30)
SPOOL, QUEUES, UPLOADS = TABLE[Kind.SPOOL], TABLE[Kind.QUEUES], TABLE[Kind.UPLOADS]


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite+aiosqlite:///{tmp_path}/rows.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    await migrate(url)
    opened = Database(url)
    yield opened
    await opened.close()


def log_of(database: Database, host: str = "one") -> ScheduleLog:
    """The log of a new process."""
    return ScheduleLog(database, ProcessIdentity(f"{host}-{uuid4().hex[:8]}", host, "", 1))


async def idle() -> Outcome:
    return IDLE


async def busy() -> Outcome:
    return Outcome({"files": 2})


async def failing() -> Outcome:
    raise StorageUnavailable("Down.")


async def rows(database: Database, kind: Kind) -> list[ScheduleRun]:
    async with database.transaction() as session:
        query = select(ScheduleRun).where(ScheduleRun.kind == kind).order_by(ScheduleRun.id)
        return list((await session.execute(query)).scalars())


async def put_back(database: Database, seconds: float) -> None:
    """Let all runs have begun earlier."""
    async with database.transaction() as session:
        await session.execute(update(ScheduleRun).values(started_at=datetime.now(UTC) - timedelta(seconds=seconds)))


async def test_a_run_leaves_a_row_that_says_what_was_done(database: Database) -> None:
    before = datetime.now(UTC)
    await log_of(database).record(SPOOL, busy)
    [row] = await rows(database, Kind.SPOOL)
    assert (row.host, row.ok, row.summary) == ("one", True, {"files": 2})
    assert row.ended_at and before <= row.started_at <= row.ended_at


async def test_runs_with_nothing_to_do_leave_one_row_every_five_minutes_in_the_whole_fleet(database: Database) -> None:
    logs = [log_of(database, host) for host in ("one", "two", "three")]
    for log in logs * 2:
        await log.record(SPOOL, idle)
    assert len(await rows(database, Kind.SPOOL)) == 1
    await put_back(database, 301)
    for log in [log_of(database), *logs]:
        await log.record(SPOOL, idle)
    assert len(await rows(database, Kind.SPOOL)) == 2


async def test_a_failure_leaves_one_row_until_it_is_over(database: Database) -> None:
    log = log_of(database)
    for _ in range(3):
        with pytest.raises(StorageUnavailable):
            await log.record(SPOOL, failing)
    await log.record(SPOOL, idle)
    assert [(row.ok, row.summary) for row in await rows(database, Kind.SPOOL)] == [
        (False, {"error": "Down."}),
        (True, {}),
    ]


async def test_frequent_work_leaves_no_rows(database: Database) -> None:
    log = log_of(database)
    await log.record(TABLE[Kind.RUNNING_JOBS], busy)
    assert await rows(database, Kind.RUNNING_JOBS) == [] and log.last()[Kind.RUNNING_JOBS].ok


async def test_only_the_newest_rows_of_a_kind_are_kept(database: Database) -> None:
    log = log_of(database)
    await log.record(UPLOADS, busy)
    for _ in range(SCHEDULE_RUNS + 5):
        await log.record(SPOOL, busy)
    kept = await rows(database, Kind.SPOOL)
    assert len(kept) == SCHEDULE_RUNS and kept[0].id == kept[-1].id - SCHEDULE_RUNS + 1
    assert len(await rows(database, Kind.UPLOADS)) == 1


async def test_one_process_of_a_fleet_gets_the_run(database: Database) -> None:
    fleet = [log_of(database, f"host{number}") for number in range(8)]
    for _ in range(3):
        claims = await asyncio.gather(*(log.claim(QUEUES) for log in fleet))
        assert sum(claim is not None for claim in claims) == 1
        await put_back(database, 61)
    assert len(await rows(database, Kind.QUEUES)) == 3


async def test_one_process_of_each_machine_gets_the_run(database: Database) -> None:
    fleet = [log_of(database, host) for host in ("one", "two") for _ in range(3)]
    claims = [await log.claim(UPLOADS) for log in fleet]
    assert [claim is not None for claim in claims] == [True, False, False, True, False, False]


async def test_a_restart_does_not_make_work_due(database: Database) -> None:
    assert await log_of(database).claim(QUEUES)
    restarted = log_of(database)
    assert await restarted.claim(QUEUES) is None and 55 < await restarted.due_in_s(QUEUES) <= 60
    await put_back(database, 61)
    assert await restarted.due_in_s(QUEUES) == 0 and await restarted.claim(QUEUES)


async def test_a_process_that_died_in_its_run_holds_nobody_up(database: Database) -> None:
    assert await log_of(database).claim(QUEUES)
    await put_back(database, 61)
    log = log_of(database)
    await log.record(QUEUES, busy, await log.claim(QUEUES))
    died, done = await rows(database, Kind.QUEUES)
    assert (died.ok, died.ended_at, done.ok) == (None, None, True)


async def test_what_another_process_did_is_known_after_a_look(database: Database) -> None:
    await log_of(database, "one").record(SPOOL, busy)
    log = log_of(database, "two")
    assert log.last() == {}
    await log.refresh()
    assert (log.last()[Kind.SPOOL].worker_id[:4], log.last()[Kind.SPOOL].summary) == ("one-", {"files": 2})


async def test_work_that_was_queued_is_recorded_by_its_workflow_alone(database: Database) -> None:
    log = log_of(database)

    async def hand_over() -> None:
        return None

    await log.record(SPOOL, hand_over)
    assert log.last() == {} and await rows(database, Kind.SPOOL) == []


async def test_neither_stuck_nor_failing_work_stops_the_rest(database: Database) -> None:
    done: list[Kind] = []

    async def stuck() -> Outcome:
        await asyncio.Event().wait()
        return IDLE

    async def works() -> Outcome:
        done.append(Kind.WEBHOOKS)
        return IDLE

    quick = Cadence(0.02)
    kinds = (Kind.SPOOL, Kind.UPLOADS, Kind.WEBHOOKS)
    table = {kind: Entry(kind, kind, quick, Place.PROCESS, rows=False) for kind in kinds}
    work = {Kind.SPOOL: stuck, Kind.UPLOADS: failing, Kind.WEBHOOKS: works}
    scheduler = Scheduler(table, work, log_of(database), lambda: 1)
    scheduler.start()
    async with asyncio.timeout(10):
        while len(done) < 5:
            await asyncio.sleep(0.02)
    await scheduler.stop()


async def test_a_scheduler_does_work_of_one_process_once_when_it_is_due(database: Database) -> None:
    done: list[str] = []

    def scheduler_of(name: str) -> Scheduler:
        async def work() -> Outcome:
            done.append(name)
            return IDLE

        table = {Kind.QUEUES: replace(QUEUES, cadence=Cadence(0.5))}
        return Scheduler(table, {Kind.QUEUES: work}, log_of(database, name), lambda: 4)

    schedulers = [scheduler_of(f"host{number}") for number in range(4)]
    began = time.monotonic()
    for scheduler in schedulers:
        scheduler.start()
    async with asyncio.timeout(60):
        while len(done) < 4:
            await asyncio.sleep(0.05)
    await asyncio.gather(*(scheduler.stop() for scheduler in schedulers))
    assert len(done) <= 1 + (time.monotonic() - began) / 0.5


def test_a_table_whose_work_is_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="spool"):
        Scheduler({Kind.SPOOL: SPOOL}, {}, None, lambda: 1)  # type: ignore[arg-type]


async def seen(client: httpx.AsyncClient, kind: Kind) -> dict[str, object]:
    """A kind's last run, as soon as /health shows that it has ended."""
    run: dict[str, object] = {"ok": None}
    async with asyncio.timeout(60):
        while run["ok"] is None:
            await asyncio.sleep(0.05)
            run = (await client.get("/health")).json()["schedule"].get(kind, run)
    return run


async def test_health_and_metrics_show_the_last_runs(client: httpx.AsyncClient, services: Services) -> None:
    await services.runner.start()
    run = await seen(client, Kind.FLEET)
    assert (run["ok"], run["worker_id"]) == (True, services.runner.worker_id)
    shown = (await client.get("/metrics")).text
    assert 'aperta_schedule_last_success_timestamp_seconds{kind="fleet"} 1.' in shown
    assert 'aperta_schedule_failures_total{kind="fleet"} 0.0' in shown


async def test_health_and_metrics_show_failures(client: httpx.AsyncClient, services: Services) -> None:
    async with services.database.transaction() as session:
        await session.execute(text("DROP TABLE uploads"))
    with pytest.raises(DatabaseUnavailable):
        await services.scheduler.run(Kind.UPLOADS)
    run = await seen(client, Kind.UPLOADS)
    assert run["ok"] is False and "uploads" in str(run["summary"])
    assert 'aperta_schedule_failures_total{kind="uploads"} 1.0' in (await client.get("/metrics")).text


async def test_what_ran_before_a_restart_is_shown_after_it(settings: Settings) -> None:
    async with api(settings) as (client, services):
        await services.runner.start()
        before = await seen(client, Kind.UPLOADS)
    async with api(settings) as (client, services):
        await services.runner.start()
        after = await seen(client, Kind.UPLOADS)
        async with services.database.transaction() as session:
            query = select(func.count()).where(ScheduleRun.kind == Kind.UPLOADS)
            assert (await session.execute(query)).scalar_one() == 1
    assert after["started_at"] == before["started_at"]


async def test_the_only_process_queues_at_once_what_waited_in_the_rows_when_it_began(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def die(*_arguments: object, **_more: object) -> None:
        return

    async with api(settings) as (client, _):
        with monkeypatch.context() as patch:
            patch.setattr(JobQueue, "add", die)
            assert (await send(client, SAMPLE, "?async=true")).status_code == 202
    async with api(settings) as (client, services):
        await services.runner.start()
        assert (await seen(client, Kind.LOST_JOBS))["summary"] == {"jobs": 1}
