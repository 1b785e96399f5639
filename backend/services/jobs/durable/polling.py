"""Polling of the durable engine's queues: often while this process has work, rarely while it has none.

DBOS asks for each queue up to ten times a second whether there is work or not. Here one cheap query for all queues,
every `LOOK_S`, finds work that another process has queued, and wakes the thread of its queue; work that this process
queues wakes it at once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import TextClause, text
from sqlalchemy.exc import SQLAlchemyError

from backend.database.session import open_sync_engine

if TYPE_CHECKING:
    from dbos import DBOS

logger = logging.getLogger(__name__)

LOOK_S = 0.75
"""A job that another process has queued begins within a second."""
AWAKE_S = 1.0
"""How long a queue is polled at its own pace after something has waked it."""
ASLEEP_S = 30.0
"""How long the thread of a queue sleeps if nothing wakes it."""
JOIN_S = 10.0
THREADS = ("queue_thread", "background_jobs_thread", "dynamic_scheduler_loop")
"""What DBOS starts at launch to poll: its queues, delays and deadlines, and schedules. Aperta sets no deadlines and has
its own schedule."""


class Sleep(threading.Event):
    """What the thread of a queue waits on between two polls; set at its end.

    Args:
        busy: returns whether this process has work, and queues are polled at their own pace.
    """

    def __init__(self, busy: Callable[[], bool]) -> None:
        super().__init__()
        self._busy = busy
        self._woken = threading.Event()
        self._awake_until = time.monotonic() + AWAKE_S

    def set(self) -> None:
        super().set()
        self._woken.set()

    def wake(self) -> None:
        """Poll now, and at the queue's own pace for a while."""
        self._awake_until = time.monotonic() + AWAKE_S
        self._woken.set()

    def wait(self, timeout: float | None = None) -> bool:
        awake = timeout is not None and (self._busy() or time.monotonic() < self._awake_until)
        self._woken.wait(timeout if awake else max(timeout or 0.0, ASLEEP_S))
        self._woken.clear()
        return self.is_set()


class QueuePolling:
    """
    Args:
        url: of the engine's database.
        queues: whose workflows this process runs.
        version: of the workflows' shape.
        busy: returns whether this process has work.

    Attributes:
        look_s: the pause between two looks for the work of other processes.
    """

    def __init__(self, url: str, queues: Sequence[str], *, version: str, busy: Callable[[], bool]) -> None:
        self.look_s = LOOK_S
        self._sleeps = {name: Sleep(busy) for name in queues}
        self._names = {f"q{number}": name for number, name in enumerate(queues)}
        self._version = version
        self._engine = open_sync_engine(
            url, pool_size=1, max_overflow=0, isolation_level="AUTOCOMMIT", pool_reset_on_return=None
        )
        self._query = _waiting(url, [*self._names])
        self._threads: dict[str, threading.Thread] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, dbos: DBOS) -> None:
        """Begin to poll. The queues are registered."""
        self._start_queues(dbos)
        self._thread = threading.Thread(target=self._run, args=(dbos,), name="queue-look", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take no more work."""
        self._stopped.set()
        for sleep in self._sleeps.values():
            sleep.set()
        for thread in (self._thread, *self._threads.values()):
            if thread is not None:
                thread.join(JOIN_S)
        self._engine.dispose()

    def wake(self, queue: str | None = None) -> None:
        """Something may wait in this queue, or in any of them; nothing happens if its work is not done here."""
        for name, sleep in self._sleeps.items():
            if queue in (None, name):
                sleep.wake()

    def _run(self, dbos: DBOS) -> None:
        reached = True
        while not self._stopped.wait(self.look_s):
            try:
                self._look(dbos)
                reached = True
            except SQLAlchemyError as error:
                if reached:
                    logger.warning("the queues cannot be read, and are tried again: %s", error)
                reached = False

    def _look(self, dbos: DBOS) -> None:
        values = {"version": self._version, "now_ms": int(time.time() * 1000), **self._names}
        with self._engine.connect() as connection:
            delayed, *waiting = connection.execute(self._query, values).one()
        if delayed:
            dbos._sys_db.transition_delayed_workflows()
            self.wake()
        for name, waits in zip(self._sleeps, waiting, strict=True):
            if waits:
                self.wake(name)
        if any(not thread.is_alive() for thread in self._threads.values()):
            self._start_queues(dbos)

    def _start_queues(self, dbos: DBOS) -> None:
        """A queue's thread ends when another process deletes the queue, as it does for a machine that seemed dead."""
        from dbos._queue import queue_worker_thread

        for name, sleep in self._sleeps.items():
            if name in self._threads and self._threads[name].is_alive():
                continue
            queue = dbos._sys_db.get_queue(name)
            if queue is not None:
                thread = threading.Thread(
                    target=queue_worker_thread, args=(sleep, dbos, queue), name=f"queue-{name}", daemon=True
                )
                self._threads[name] = thread
                thread.start()


def keep_threads_still() -> None:
    """Let the threads that DBOS starts at launch, and that poll, do nothing until they are to end.

    Raises:
        AttributeError: this version of DBOS has no such thread.
    """
    import dbos._dbos

    for name in THREADS:
        getattr(dbos._dbos, name)
        setattr(dbos._dbos, name, _rest)


def _rest(stopped: threading.Event, *_arguments: object) -> None:
    stopped.wait()


def _waiting(url: str, names: Sequence[str]) -> TextClause:
    """Whether a delay has ended, and for each queue whether something waits in it; states are literals for the
    partial indexes."""
    table = "workflow_status" if url.startswith("sqlite") else "dbos.workflow_status"
    looks = [f"EXISTS (SELECT 1 FROM {table} WHERE status = 'DELAYED' AND delay_until_epoch_ms <= :now_ms)"]
    looks += [
        f"EXISTS (SELECT 1 FROM {table} WHERE queue_name = :{name} AND status = 'ENQUEUED' "
        "AND application_version = :version)"
        for name in names
    ]
    return text(f"SELECT {', '.join(looks)}")
