"""A job's row under two processes that act in any order and at once: it is always as the transitions say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.database import jobs
from backend.database.migrate import migrate
from backend.database.models import Job
from backend.database.session import Database
from backend.domain.jobs import Superseded
from backend.domain.states import jobs as job_states
from backend.domain.states.jobs import ACTIVE, ENDED, Change, JobStatus, Turn, crashes_at_claim, turn_of

AT = datetime(2026, 1, 15, 12, tzinfo=UTC)
ERROR = {"kind": "ProcessingFailed", "detail": "broke"}
RUNNING, FAILED = (JobStatus.RUNNING,), (JobStatus.FAILED,)
FEW = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Act:
    """What a process or a client does to the job.

    Attributes:
        kind: name of the transition.
        worker: who claims.
        turn: which of the attempts so far acts; most are out of date.
        flag: whether the attempt crashed, has advanced, or kept the recording.
    """

    kind: str
    worker: str = "a"
    turn: int = 0
    flag: bool = False


KINDS = (
    "claim",
    "progress",
    "complete",
    "fail",
    "refuse",
    "abandon",
    "requeue",
    "cancel",
    "cancel all",
    "retry",
    "erase",
)
WEIGHTED = (*KINDS, "claim", "claim")
"""Else most walks end before much has happened."""
ACTS = st.builds(
    Act,
    st.sampled_from(WEIGHTED),
    st.sampled_from(["a", "b"]),
    st.integers(0, 3),
    st.booleans(),
)


def expected(act: Act, attempt: int, row: Row) -> Row:
    """The job after an act, by rules that are written here independently of the code."""
    owned = row["attempt"] == attempt
    where: dict[str, tuple[bool, Change]] = {
        "progress": (owned and row["status"] in RUNNING, _progressed(act)),
        "complete": (owned and row["status"] in RUNNING, job_states.completed(result={"timings_s": {}}, at=AT)),
        "fail": (owned and row["status"] in RUNNING, job_states.failed(error=ERROR, recording=_kept(act), at=AT)),
        "refuse": (owned and row["status"] in RUNNING, job_states.refused(error=ERROR, at=AT)),
        "abandon": (owned and row["status"] in RUNNING, job_states.abandoned(at=AT)),
        "requeue": (owned and row["status"] in RUNNING, job_states.requeued(crashes=row["crashes"] + act.flag)),
        "cancel": (row["status"] in ACTIVE, job_states.cancelled(at=AT)),
        "cancel all": (row["status"] in ACTIVE, job_states.cancelled(at=AT)),
        "retry": (row["status"] in FAILED, job_states.retried()),
        "erase": (True, job_states.erased()),
        "claim": (row["status"] in ACTIVE, _claimed(act, row)),
    }
    allowed, change = where[act.kind]
    return row | dict(change.columns) if allowed else row


async def perform(act: Act, attempt: int, job_id: str, session: AsyncSession) -> int | None:
    """Do it to the database; returns the attempt that a claim began."""
    try:
        match act.kind:
            case "claim":
                return await _claim(session, job_id, act.worker)
            case "progress":
                await jobs.report_progress(session, job_id, attempt, "store", 0.5, advanced=act.flag)
            case "complete":
                await jobs.complete(session, job_id, attempt, result={"timings_s": {}}, at=AT)
            case "fail":
                await jobs.fail(session, job_id, attempt, error=ERROR, recording=_kept(act), at=AT)
            case "refuse":
                await jobs.refuse(session, job_id, attempt, error=ERROR, at=AT)
            case "abandon":
                await jobs.abandon(session, job_id, attempt, at=AT)
            case "requeue":
                await jobs.requeue(session, job_id, attempt, crashed=act.flag)
            case "cancel":
                await jobs.cancel(session, job_id, at=AT)
            case "cancel all":
                await jobs.cancel_all_of(session, f"conv_{job_id}", at=AT)
            case "retry":
                await jobs.retry(session, job_id)
            case "erase":
                await jobs.erase_all_of(session, f"conv_{job_id}")
    except Superseded:
        return None
    return None


class Walk(RuleBasedStateMachine):
    """One job, two processes that keep every attempt they ever began, and a client."""

    def __init__(self, loop: asyncio.Runner, database: Database) -> None:
        super().__init__()
        self._loop = loop
        self._database = database
        self._job_id = f"job_{uuid4().hex}"
        self._attempts: list[int] = []
        self._row = loop.run(self._accept())

    @rule(act=ACTS)
    def act(self, act: Act) -> None:
        """One after the other."""
        attempt, before = self._attempt(act), self._row
        self._loop.run(self._perform(act, attempt))
        self._row = self._loop.run(self._read())
        assert self._row == expected(act, attempt, before)
        self._check_end(before, [act])

    @rule(one=ACTS, other=ACTS)
    def race(self, one: Act, other: Act) -> None:
        """Both at the same moment: the outcome is that of one order or the other."""
        attempts, before = (self._attempt(one), self._attempt(other)), self._row
        self._loop.run(self._perform_both(one, other, attempts))
        self._row = self._loop.run(self._read())
        first = expected(other, attempts[1], expected(one, attempts[0], before))
        second = expected(one, attempts[0], expected(other, attempts[1], before))
        assert self._row in (first, second)
        self._check_end(before, [one, other])

    @invariant()
    def only_a_running_job_has_an_owner(self) -> None:
        assert (self._row["worker_id"] is not None) == (self._row["status"] == JobStatus.RUNNING)

    @invariant()
    def no_two_attempts_have_the_same_number(self) -> None:
        assert len(set(self._attempts)) == len(self._attempts)
        assert self._row["attempt"] == max(self._attempts, default=0)

    @invariant()
    def an_ended_job_says_when_it_ended(self) -> None:
        assert (self._row["finished_at"] is not None) == (self._row["status"] in ENDED)

    def _check_end(self, before: Row, acts: list[Act]) -> None:
        if before["status"] in ENDED and not any(act.kind == "retry" for act in acts):
            assert self._row["status"] == before["status"]
            assert self._row["result"] == before["result"]

    def _attempt(self, act: Act) -> int:
        """The newest attempt or one of those before it."""
        return self._attempts[-1 - act.turn % len(self._attempts)] if self._attempts else 0

    async def _perform(self, act: Act, attempt: int) -> None:
        async with self._database.transaction() as session:
            began = await perform(act, attempt, self._job_id, session)
        if began is not None:
            self._attempts.append(began)

    async def _perform_both(self, one: Act, other: Act, attempts: tuple[int, int]) -> None:
        await asyncio.gather(self._perform(one, attempts[0]), self._perform(other, attempts[1]))
        self._attempts.sort()

    async def _accept(self) -> Row:
        job = Job(
            id=self._job_id,
            conversation_id=f"conv_{self._job_id}",
            queue="asr",
            owner="ann",
            recording=self._job_id,
            filename="talk.wav",
            size_bytes=1,
            sha256="0" * 64,
            options={"title": "Talk"},
            idempotency_key=self._job_id,
            created_at=AT - timedelta(minutes=1),
        )
        async with self._database.transaction() as session:
            await jobs.accept(session, job)
        row = await self._read()
        assert row == row | dict(job_states.accepted().columns)
        return row

    async def _read(self) -> Row:
        async with self._database.transaction() as session:
            found = await session.execute(select(*Job.__table__.columns).where(Job.id == self._job_id))
            return dict(found.one()._mapping)


def _progressed(act: Act) -> Change:
    return job_states.progressed(stage="store", progress=0.5, advanced=act.flag)


def _kept(act: Act) -> str | None:
    return "file:///talk.wav" if act.flag else "spool"


def _claimed(act: Act, row: Row) -> Change:
    crashes = row["crashes"] + (row["status"] == JobStatus.RUNNING)
    if crashes >= 3:
        return job_states.parked(error=ERROR, crashes=crashes, at=AT)
    return job_states.claimed(
        worker_id=act.worker, attempt=row["attempt"], crashes=crashes, started_at=row["started_at"], at=AT
    )


async def _claim(session: AsyncSession, job_id: str, worker_id: str) -> int | None:
    job = await jobs.get_job(session, job_id, lock=True)
    crashes = crashes_at_claim(job.status, job.crashes)
    turn = turn_of(job.status, crashes)
    if turn is Turn.SKIP:
        return None
    if turn is Turn.PARK:
        await jobs.park(session, job, error=ERROR, crashes=crashes, at=AT)
        return None
    claimed = await jobs.claim(session, job, worker_id, crashes=crashes, at=AT)
    assert claimed is not None and claimed.worker_id == worker_id
    return claimed.attempt


@contextmanager
def opened(url: str) -> Iterator[tuple[asyncio.Runner, Database]]:
    with asyncio.Runner() as loop:
        loop.run(migrate(url))
        database = Database(url)
        try:
            yield loop, database
        finally:
            loop.run(database.close())


def test_a_walk_through_the_states_on_sqlite(tmp_path: Path) -> None:
    with opened(f"sqlite+aiosqlite:///{tmp_path}/rows.db") as (loop, database):
        run_state_machine_as_test(lambda: Walk(loop, database), settings=FEW)


def test_a_walk_through_the_states_on_postgresql(postgres_url: str) -> None:
    with opened(postgres_url) as (loop, database):
        run_state_machine_as_test(lambda: Walk(loop, database), settings=FEW)


def test_a_process_that_was_only_slow_cannot_cancel_a_job_that_was_taken_from_it(tmp_path: Path) -> None:
    with opened(f"sqlite+aiosqlite:///{tmp_path}/rows.db") as (loop, database):
        walk = Walk(loop, database)
        for act in (Act("claim"), Act("requeue", flag=True), Act("abandon")):
            walk.act(act)
        assert walk._row["status"] == JobStatus.QUEUED


@pytest.mark.anyio
async def test_a_job_that_is_read_in_the_same_transaction_shows_the_transition(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/rows.db"
    await migrate(url)
    database = Database(url)
    try:
        async with database.transaction() as session:
            job = Job(
                id="job_1",
                conversation_id="conv_1",
                queue="asr",
                filename="a.wav",
                size_bytes=1,
                sha256="",
                options={},
                created_at=AT,
            )
            await jobs.accept(session, job)
            await session.flush()
            assert await jobs.cancel(session, job.id, at=AT) is job
            assert job.status == JobStatus.CANCELLED and job.finished_at == AT
    finally:
        await database.close()
