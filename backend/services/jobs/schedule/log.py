"""ScheduleLog: what is known of the runs of periodic work, here and in other processes; some of it is kept as rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import IntegrityError

from backend.database import schedule as rows
from backend.database.models import ScheduleRun
from backend.database.session import Database
from backend.database.workers import read_clock
from backend.domain.lifecycle import SCHEDULE_RUNS, Cadence
from backend.errors import AppError, DatabaseUnavailable
from backend.services.jobs.heartbeat import ProcessIdentity
from backend.services.jobs.schedule.table import Entry, Kind, Place

IDLE_ROWS = Cadence(300.0)
"""How often a run that did nothing leaves a row."""

MAX_ERROR_CHARS = 500


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did.

    Attributes:
        summary: counts and remarks; empty if there was nothing to do.
        ok: False if the work ended early, and is done again later.
    """

    summary: Mapping[str, object] = field(default_factory=dict)
    ok: bool = True


IDLE = Outcome()

Work = Callable[[], Awaitable[Outcome | None]]
"""One run. None: a durable workflow was queued, and records what came of it."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a kind; `ended_at` and `ok` have no value while it runs."""

    kind: str
    worker_id: str
    started_at: datetime
    ended_at: datetime | None = None
    ok: bool | None = None
    summary: Mapping[str, object] = field(default_factory=dict)


class ScheduleLog(Collector):
    """Runs of this process as they happen, and the rows of all others as `refresh` found them.

    Args:
        identity: of this process.
    """

    def __init__(self, database: Database, identity: ProcessIdentity) -> None:
        self._database = database
        self._identity = identity
        self._here: dict[str, Run] = {}
        self._rows: dict[str, Run] = {}
        self._succeeded_at: dict[str, datetime] = {}
        self._runs: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()

    def last(self) -> Mapping[str, Run]:
        """The last run of each kind in any process, as far as this one knows; asks nothing."""
        known = [*self._rows.values(), *self._here.values()]
        return {run.kind: run for run in sorted(known, key=lambda run: run.started_at)}

    async def refresh(self) -> None:
        """Read the last row of each kind.

        Raises:
            DatabaseUnavailable
        """
        async with self._database.transaction() as session:
            found = await rows.list_last(session)
        for row in found:
            self._learn(_run_of(row))

    async def due_in_s(self, entry: Entry) -> float:
        """Seconds until work that only one process of a machine, or of the fleet, does is due again.

        Raises:
            DatabaseUnavailable
        """
        async with self._database.transaction() as session:
            last = await rows.find_last(session, entry.kind, host=self._scope(entry))
            now = await read_clock(session)
        return _cadence(entry).due_in_s(now, last.started_at if last else None)

    async def claim(self, entry: Entry) -> ScheduleRun | None:
        """Write the beginning of a run that only one process does; None if it is not due, or another process has it.

        Raises:
            DatabaseUnavailable
        """
        host = self._scope(entry)
        try:
            async with self._database.transaction() as session:
                last = await rows.find_last(session, entry.kind, host=host)
                now = await read_clock(session)
                if not _cadence(entry).is_due(now, last.started_at if last else None):
                    return None
                row = self._row(entry.kind, now)
                row.claim = f"{entry.kind}@{host or ''}:{last.id if last else 0}"
                await rows.add(session, row, keep=SCHEDULE_RUNS)
                return row
        except IntegrityError:
            return None

    async def record(self, entry: Entry, work: Work, claimed: ScheduleRun | None = None) -> None:
        """Do the work once, and note when and how it ended.

        Raises:
            Exception: as the work raised it.
            DatabaseUnavailable: the row could not be written.
        """
        before = self._here.get(entry.kind)
        begun = self._begin(entry.kind, claimed.started_at if claimed else datetime.now(UTC))
        try:
            outcome = await work()
        except Exception as error:
            failed = _ended(begun, Outcome({"error": _describe(error)}, ok=False))
            try:
                await self._end(entry, failed, before, claimed)
            except DatabaseUnavailable as unavailable:
                error.add_note(f"This run left no row: {unavailable}")
            raise
        if outcome is None:
            self._forget(before, begun)
            return
        await self._end(entry, _ended(begun, outcome), before, claimed)

    def collect(self) -> Iterator[Metric]:
        runs = CounterMetricFamily("aperta_schedule_runs", "Runs of periodic work in this process", labels=["kind"])
        failures = CounterMetricFamily(
            "aperta_schedule_failures", "Runs of periodic work in this process that failed", labels=["kind"]
        )
        success = GaugeMetricFamily(
            "aperta_schedule_last_success_timestamp_seconds",
            "When periodic work last succeeded, in any process that this one knows of",
            labels=["kind"],
        )
        for kind in Kind:
            runs.add_metric([kind], self._runs[kind])
            failures.add_metric([kind], self._failures[kind])
            if kind in self._succeeded_at:
                success.add_metric([kind], self._succeeded_at[kind].timestamp())
        yield from (runs, failures, success)

    def _begin(self, kind: str, at: datetime) -> Run:
        run = Run(kind, self._identity.id, at)
        self._here[kind] = run
        return run

    def _forget(self, before: Run | None, begun: Run) -> None:
        """Handing work to a queue is no run; the workflow may have recorded one already."""
        if self._here.get(begun.kind) is not begun:
            return
        del self._here[begun.kind]
        if before is not None:
            self._here[begun.kind] = before

    async def _end(self, entry: Entry, run: Run, before: Run | None, claimed: ScheduleRun | None) -> None:
        self._here[run.kind] = run
        self._count(run)
        if claimed is not None:
            await self._end_row(claimed, run)
        elif entry.rows and (entry.place != Place.PROCESS or _is_news(run, before)):
            await self._add_row(run)
        elif entry.rows and _is_overdue(run, self._rows.get(run.kind)):
            await self._add_idle_row(run)

    async def _end_row(self, row: ScheduleRun, run: Run) -> None:
        async with self._database.transaction() as session:
            now = await read_clock(session)
            await rows.end(session, row.id, ended_at=now, ok=bool(run.ok), summary=run.summary)
        self._learn(run)

    async def _add_row(self, run: Run) -> None:
        row = self._row(run.kind, run.started_at)
        row.ended_at, row.ok, row.summary = run.ended_at, run.ok, dict(run.summary)
        async with self._database.transaction() as session:
            await rows.add(session, row, keep=SCHEDULE_RUNS)
        self._learn(run)

    async def _add_idle_row(self, run: Run) -> None:
        """Write that there was nothing to do, unless another process has a row of the last minute."""
        async with self._database.transaction() as session:
            last = await rows.find_last(session, run.kind)
        if last is None or _is_overdue(run, _run_of(last)):
            await self._add_row(run)
        else:
            self._learn(_run_of(last))

    def _row(self, kind: str, started_at: datetime) -> ScheduleRun:
        return ScheduleRun(kind=kind, host=self._identity.host, worker_id=self._identity.id, started_at=started_at)

    def _scope(self, entry: Entry) -> str | None:
        return self._identity.host if entry.place == Place.MACHINE else None

    def _learn(self, run: Run) -> None:
        self._rows[run.kind] = run
        self._note_success(run)

    def _count(self, run: Run) -> None:
        self._runs[run.kind] += 1
        self._failures[run.kind] += not run.ok
        self._note_success(run)

    def _note_success(self, run: Run) -> None:
        if run.ok and run.ended_at:
            self._succeeded_at[run.kind] = max(run.ended_at, self._succeeded_at.get(run.kind, run.ended_at))


def _is_news(run: Run, before: Run | None) -> bool:
    """Whether a run did something, or ended otherwise than the one before it in this process."""
    changed = run.ok != before.ok if before is not None else not run.ok
    return changed or bool(run.ok and run.summary)


def _is_overdue(run: Run, last: Run | None) -> bool:
    """Whether a run is worth a row only because the last row is old."""
    return IDLE_ROWS.is_due(run.started_at, last.started_at if last else None)


def _describe(error: Exception) -> str:
    said = str(error) if isinstance(error, AppError) else f"{type(error).__name__}: {error}"
    return said[:MAX_ERROR_CHARS]


def _ended(run: Run, outcome: Outcome) -> Run:
    return replace(run, ended_at=datetime.now(UTC), ok=outcome.ok, summary=outcome.summary)


def _run_of(row: ScheduleRun) -> Run:
    return Run(row.kind, row.worker_id, row.started_at, row.ended_at, row.ok, row.summary or {})


def _cadence(entry: Entry) -> Cadence:
    if entry.cadence is None:
        raise ValueError(f"{entry.kind} runs on command only")
    return entry.cadence
