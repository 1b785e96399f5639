"""The durable engine (DBOS Transact): workflows with checkpointed steps, and queues. Only this file,
`database.py` and `polling.py` name DBOS.

DBOS keeps one instance per process, so only one `DurableEngine` can run in a process at a time. Its state lives beside
the rows: in a second SQLite file, or in the schema `dbos` of the same PostgreSQL database.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import anyio
import anyio.to_thread

from backend.database.session import database_errors, durable_url
from backend.domain.jobs import Superseded
from backend.services.jobs.durable.checkpoints import JsonCheckpoints, refuse_pickle
from backend.services.jobs.durable.database import connect, use_wal
from backend.services.jobs.durable.polling import LOOK_S, QueuePolling, keep_threads_still
from backend.services.jobs.durable.values import ENDED, OPEN, RUNS, Pending, QueueLimit, Retries, WorkflowState

if TYPE_CHECKING:
    from dbos import DBOSConfig, EnqueueOptions, Serializer

logger = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")
Workflow = Callable[[str], Coroutine[Any, Any, None]]

CONNECTIONS = 4
"""To PostgreSQL, beside the one that looks for work. Few: every worker has them, and servers allow some hundred."""
OUTCOMES_WITHIN_S = 3.0
ROOM_WITHIN_S = 0.5
FORSAKEN_AFTER_S = 10.0
MOST_POLLS_PER_S = 100
"""Of one queue, by all processes together."""


def _told_plainly(method: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """What says that the database cannot be used becomes DatabaseUnavailable."""

    @wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with database_errors():
            return await method(*args, **kwargs)

    return call


class DurableEngine:
    """Every method that asks the engine's database may raise DatabaseUnavailable.

    Args:
        database_url: as Settings.database_url; says where the engine keeps its state.
        executor_id: what this process is called; never that of another process, dead or alive.
        version: of the workflows' shape, a whole number. A process only takes workflows of this version, because
            checkpoints of another shape would be mixed up.
    """

    def __init__(self, database_url: str, *, executor_id: str, version: str) -> None:
        self.executor_id = executor_id
        self.version = version
        self._url = durable_url(database_url)
        self._queues: Mapping[str, QueueLimit] = {}
        self._paced: dict[str, float] = {}
        self._workflows: dict[str, Workflow] = {}
        self._returned: set[str] = set()
        self._active: set[str] = set()
        self._given_up: set[str] = set()
        self._silent_since: dict[str, float] = {}
        self._polling: QueuePolling | None = None
        self._ended_at = -math.inf
        self._started = False

    def register(self, name: str, workflow: Workflow) -> None:
        """Make a workflow known under a name that stays the same between versions; before `start`."""
        self._workflows[name] = workflow

    async def start(self, queues: Mapping[str, QueueLimit], listen: Sequence[str]) -> None:
        """Launch; workflows run on the caller's event loop.

        Args:
            queues: every queue that exists.
            listen: those whose workflows this process runs.
        """
        from dbos import DBOS

        self._workflows = {name: DBOS.workflow(name=name)(self._function(run)) for name, run in self._workflows.items()}
        config: DBOSConfig = {
            "name": "aperta",
            "system_database_url": self._url,
            "executor_id": self.executor_id,
            "application_version": self.version,
            "enable_otlp": False,
            "console_log_level": "ERROR",
            "log_level": "ERROR",
            "sys_db_pool_size": CONNECTIONS,
            "serializer": cast("Serializer", JsonCheckpoints()),
            "use_listen_notify": False,  # nothing here sends events, and poolers that pool by transaction lose them
        }
        _read_no_pickles()
        keep_threads_still()
        if self._url.startswith("sqlite"):
            await anyio.to_thread.run_sync(use_wal, self._url)
        else:
            config["db_engine_kwargs"] = {"creator": partial(connect, self._url)}
        instance = DBOS(config=config)
        DBOS.launch()
        self._started = True
        self._queues = {name: limit for name, limit in queues.items() if name in listen}
        for name, limit in queues.items():
            await DBOS.register_queue_async(
                name,
                worker_concurrency=limit.concurrency,
                polling_interval_sec=limit.poll_s,
                on_conflict="always_update" if name in listen else "never_update",
            )
        self._polling = QueuePolling(self._url, listen, version=self.version, busy=self._is_busy)
        await anyio.to_thread.run_sync(self._polling.start, instance)

    @_told_plainly
    async def pace(self, processes: int) -> None:
        """Look at queues less often the more processes do, so that a job waits the same time to be seen by one of them.

        Args:
            processes: how many there are.
        """
        from dbos import DBOS

        if self._polling is not None:
            self._polling.look_s = max(LOOK_S, processes / MOST_POLLS_PER_S)
        for name, limit in self._queues.items():
            wanted, paced = max(limit.poll_s, processes / MOST_POLLS_PER_S), self._paced.get(name, limit.poll_s)
            if 0.8 * paced <= wanted <= 1.25 * paced:
                continue
            queue = await DBOS.retrieve_queue_async(name)
            if queue is not None:
                await queue.set_polling_interval_sec_async(wanted)
                self._paced[name] = wanted

    @_told_plainly
    async def forget_queues(self, prefix: str, wanted: Collection[str]) -> int:
        """Delete the queues whose names begin with `prefix`, except those wanted; what waits in them stays there.

        Returns:
            How many were deleted.
        """
        from dbos import DBOS

        queues = [queue.name for queue in await DBOS.list_queues_async()]
        unwanted = [name for name in queues if name.startswith(prefix) and name not in wanted]
        for name in unwanted:
            await DBOS.delete_queue_async(name)
        return len(unwanted)

    async def stop(self) -> None:
        """Stop taking work and close; what still runs stays PENDING for another process to resume."""
        from dbos import DBOS

        if self._started:
            self._started = False
            await self._let_outcomes_be_written()
            if self._polling is not None:
                await anyio.to_thread.run_sync(self._polling.stop)
            await anyio.to_thread.run_sync(lambda: DBOS.destroy(destroy_registry=True))
            # It had made its own threads the loop's, and ended them; files and names are still to be looked up.
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())

    def give_up(self, workflow_id: str) -> None:
        """This workflow of ours will not return; `stop` is not to wait for it."""
        self._given_up.add(workflow_id)

    def _function(self, workflow: Workflow) -> Workflow:
        """A new function, because DBOS sets attributes on what it is given, which bound methods do not allow."""

        async def run(workflow_id: str) -> None:
            self._active.add(workflow_id)
            try:
                await workflow(workflow_id)
            finally:
                self._active.discard(workflow_id)
                self._ended_at = time.monotonic()
            self._returned.add(workflow_id)

        return run

    def _is_busy(self) -> bool:
        """A workflow runs, or has just ended and made room for the next one."""
        return bool(self._active) or time.monotonic() - self._ended_at < ROOM_WITHIN_S

    def _wake(self, queue: str) -> None:
        if self._polling is not None:
            self._polling.wake(queue)

    async def _let_outcomes_be_written(self) -> None:
        """A workflow that has returned is over only when DBOS has written that down, a moment later."""
        end = time.monotonic() + OUTCOMES_WITHIN_S
        while (self._returned or self._active - self._given_up) and time.monotonic() < end:
            states = await self.states([*self._returned])
            self._returned = {name for name, state in states.items() if not state.ended}
            await asyncio.sleep(0.01)

    @_told_plainly
    async def enqueue(
        self,
        workflow: str,
        workflow_id: str,
        queue: str,
        *,
        priority: int = 0,
        delay_s: float = 0,
        only_one: str | None = None,
    ) -> None:
        """Queue a workflow; an id that is known already is left as it is.

        Args:
            priority: lower ones first, 0 before all.
            delay_s: how many seconds it must wait at least.
            only_one: a name that no two workflows of the queue have at a time; the second is not queued.
        """
        from dbos import DBOS

        options: EnqueueOptions = {
            "workflow_name": workflow,
            "queue_name": queue,
            "workflow_id": workflow_id,
            "app_version": self.version,
        }
        if priority > 0:
            options["priority"] = priority
        if only_one is not None:
            options |= {"deduplication_id": only_one, "duplication_policy": "return-existing"}
        if delay_s > 0:
            options["delay_seconds"] = delay_s
        await DBOS.enqueue_workflow_with_options_async(options, workflow_id)
        if delay_s <= 0:
            self._wake(queue)

    @_told_plainly
    async def run_here(self, workflow: str, workflow_id: str) -> None:
        """Start a workflow in this process, past every queue."""
        from dbos import DBOS, SetWorkflowID

        with SetWorkflowID(workflow_id):
            await DBOS.start_workflow_async(self._workflows[workflow], workflow_id)

    @_told_plainly
    async def cancel(self, workflow_id: str) -> None:
        """Never start its next step."""
        from dbos import DBOS

        await DBOS.cancel_workflow_async(workflow_id)

    @_told_plainly
    async def resume(self, workflow_id: str, queue: str) -> None:
        """Put a workflow back into a queue, even if another process had it; finished steps are not repeated."""
        from dbos import DBOS

        await DBOS.resume_workflow_async(workflow_id, queue_name=queue)
        self._wake(queue)

    @_told_plainly
    async def forget(self, workflow_ids: Sequence[str]) -> None:
        """Delete workflows and their checkpoints."""
        from dbos import DBOS

        await DBOS.delete_workflows_async(list(workflow_ids))

    @_told_plainly
    async def states(self, workflow_ids: Sequence[str]) -> dict[str, WorkflowState]:
        """What is known of these workflows; ids that are not known are left out."""
        from dbos import DBOS

        if not workflow_ids:
            return {}
        found = await DBOS.list_workflows_async(
            workflow_ids=list(workflow_ids), load_input=False, load_output=False, limit=len(workflow_ids)
        )
        return {item.workflow_id: WorkflowState(item.status, item.executor_id, item.app_version) for item in found}

    @_told_plainly
    async def pending(self) -> list[Pending]:
        """Workflows of this version that run somewhere, or did until their process died."""
        from dbos import DBOS

        found = await DBOS.list_workflows_async(status="PENDING", load_input=False, load_output=False, limit=1000)
        ours = {item.workflow_id for item in found if item.executor_id == self.executor_id}
        forsaken = self._note_silent(ours - self._active)
        return [
            Pending(item.workflow_id, item.name, item.queue_name, item.executor_id, item.workflow_id in forsaken)
            for item in found
            if item.app_version == self.version
        ]

    @_told_plainly
    async def older(self) -> list[Pending]:
        """Workflows of older versions that have not ended; they never start here. One that waits has no executor."""
        from dbos import DBOS

        found = await DBOS.list_workflows_async(status=list(OPEN), load_input=False, load_output=False, limit=1000)
        return [
            Pending(
                item.workflow_id, item.name, item.queue_name, item.executor_id if item.status == RUNS else None, False
            )
            for item in found
            if item.app_version is None or _number(item.app_version) < _number(self.version)
        ]

    def _note_silent(self, ids: set[str]) -> set[str]:
        """Those that have been silent for long; others may be about to begin, or to be written down as ended."""
        now = time.monotonic()
        self._silent_since = {name: self._silent_since.get(name, now) for name in ids}
        return {name for name, since in self._silent_since.items() if now - since > FORSAKEN_AFTER_S}

    @_told_plainly
    async def ended(self, limit: int) -> list[str]:
        """Ids of workflows that ended, oldest first."""
        from dbos import DBOS

        found = await DBOS.list_workflows_async(
            status=list(ENDED), load_input=False, load_output=False, limit=limit, sort_desc=False
        )
        self._returned.difference_update(item.workflow_id for item in found)
        return [item.workflow_id for item in found]


def _number(version: str) -> int:
    return int(version) if version.isdecimal() else 0


def _read_no_pickles() -> None:
    """DBOS unpickles every row that is marked as a pickle, whichever serializer is configured."""
    from dbos._serialization import DefaultSerializer

    DefaultSerializer.deserialize = refuse_pickle  # type: ignore[assignment, method-assign]


async def run_step(name: str, work: Callable[[], Awaitable[T]], retries: Retries | None = None) -> T:
    """Run `work` as a step of the workflow we are in: what it returned the first time is what it returns.

    Raises:
        Superseded: another process has the workflow now, and what `work` returned was not written down.
        DatabaseUnavailable: what `work` returned, or raised, could not be written down.
        Exception: as `work` raised it, the last time.
    """
    from dbos import DBOS
    from dbos._error import DBOSMaxStepRetriesExceeded, DBOSWorkflowConflictIDError

    async def step() -> T:
        return await work()

    options: Any = {"name": name}
    if retries:
        passing = retries.passing
        options |= {
            "retries_allowed": True,
            "max_attempts": retries.attempts,
            "interval_seconds": retries.first_wait_s,
            "should_retry": lambda error: isinstance(error, passing),
        }
    try:
        with database_errors():
            return cast(T, await DBOS.run_step_async(options, step))
    except DBOSMaxStepRetriesExceeded as error:
        raise error.errors[-1] from error
    except DBOSWorkflowConflictIDError as error:
        raise Superseded("Another process has taken the job over.") from error
