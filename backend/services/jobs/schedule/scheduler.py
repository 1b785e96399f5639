"""Scheduler: runs the table of periodic work, each kind in its own task, so that a stuck one stops no other."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from functools import partial

from backend.concurrency.rounds import Rounds
from backend.services.jobs.schedule.log import IDLE, Outcome, ScheduleLog, Work
from backend.services.jobs.schedule.table import Entry, Kind, Means, Place

QUIET_AFTER_S = 30.0


class Scheduler:
    """
    Args:
        schedule: the table.
        work: what to do for each kind of the table that is a task or a workflow.
        log: notes the runs.
        processes: returns the size of the fleet.
    """

    def __init__(
        self,
        schedule: Mapping[Kind, Entry],
        work: Mapping[Kind, Work],
        log: ScheduleLog,
        processes: Callable[[], int],
    ) -> None:
        wanted = {kind for kind, entry in schedule.items() if entry.means in (Means.TASK, Means.WORKFLOW)}
        if wanted != set(work):
            raise ValueError(f"The table and the work differ: {sorted(wanted ^ set(work))}.")
        self._schedule, self._work, self._log, self._processes = schedule, work, log, processes
        self._due_in_s: dict[Kind, float] = {}
        self._idle: set[Kind] = set()
        self._busy_at = time.monotonic()
        self._rounds = {
            kind: Rounds(
                schedule[kind].what, partial(self._turn, schedule[kind]), partial(self._pause_s, schedule[kind])
            )
            for kind in sorted(wanted)
        }

    def start(self) -> None:
        """Begin; what is due runs at once, or as soon as the table says."""
        for kind, rounds in self._rounds.items():
            rounds.start(self._schedule[kind].first_s)

    async def stop(self) -> None:
        """Stop; runs that end soon are not cut short."""
        await asyncio.gather(*(rounds.stop() for rounds in self._rounds.values()))

    def hurry(self, *kinds: Kind) -> None:
        """There is something to do for these kinds of work."""
        for kind in kinds:
            self._rounds[kind].hurry()

    async def run(self, kind: Kind) -> None:
        """Do one kind of work now, due or not.

        Raises:
            Exception: as the work raised it.
        """
        await self._log.record(self._schedule[kind], partial(self._do, kind))

    async def _turn(self, entry: Entry) -> None:
        self._due_in_s.pop(entry.kind, None)
        if entry.place == Place.PROCESS:
            await self.run(entry.kind)
        elif entry.needs_claim:
            await self._run_claimed(entry)
        elif not await self._must_wait(entry):
            await self.run(entry.kind)

    async def _run_claimed(self, entry: Entry) -> None:
        claimed = await self._log.claim(entry)
        if claimed is None:
            await self._must_wait(entry)
        else:
            await self._log.record(entry, partial(self._do, entry.kind), claimed)

    async def _do(self, kind: Kind) -> Outcome | None:
        self._idle.discard(kind)
        outcome = await self._work[kind]()
        if outcome == IDLE:
            self._idle.add(kind)
        elif outcome is not None:
            self._busy_at = time.monotonic()
        return outcome

    def _is_quiet(self, entry: Entry) -> bool:
        """Whether this work had nothing to do, nor, unless it says when it has, any other in this process for long."""
        long = time.monotonic() - self._busy_at > QUIET_AFTER_S
        if entry.peers and self._processes() > 1:
            return False
        return entry.kind in self._idle and (entry.hurried or long)

    async def _must_wait(self, entry: Entry) -> bool:
        due_in_s = self._due_in_s[entry.kind] = await self._log.due_in_s(entry)
        return due_in_s > 0

    def _pause_s(self, entry: Entry) -> float:
        assert entry.cadence is not None
        pause_s = entry.cadence.pause_s(
            processes=self._processes(), chance=random.random(), quiet=self._is_quiet(entry)
        )
        due_in_s = self._due_in_s.get(entry.kind, 0.0)
        if due_in_s <= 0:
            return pause_s
        return due_in_s + entry.cadence.jitter * entry.cadence.every_s * random.random()
