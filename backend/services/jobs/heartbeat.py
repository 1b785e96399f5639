"""Who lives: a heartbeat of this process, and taking over the jobs of processes that died.

A process is dead when its heartbeat is older than `DEAD_AFTER_S`, or at once when it ran on this machine and its pid is
gone or is another process's by now. The heartbeat has its own thread and connection: neither inference nor a
busy event loop can hold it up.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from backend.database import workers
from backend.database.models import Worker
from backend.database.session import open_sync_engine, sync_url

logger = logging.getLogger(__name__)

BEAT_EVERY_S = 3.0
DEAD_AFTER_S = 15.0


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """This process among all that ever were: a pid alone comes round again.

    Attributes:
        host: the machine's name.
        boot_id: of the machine's run and of the pid namespace, so that pids compare.
    """

    id: str
    host: str
    boot_id: str
    pid: int


def this_process() -> ProcessIdentity:
    host, pid = socket.gethostname()[:60], os.getpid()
    return ProcessIdentity(f"{host}-{pid}-{_started_at(pid)}", host, _boot_id(), pid)


def is_dead(worker: Worker, now: datetime, steady_s: float) -> bool:
    """Whether a registered process cannot be working any more, as far as can be told from here.

    Args:
        now: by the clock of the database, as the heartbeats are.
        steady_s: for how long this process has reached the database. No process can have given a sign of life while
            it was away, so silence counts only after that.
    """
    if steady_s > DEAD_AFTER_S and now - worker.heartbeat_at > timedelta(seconds=DEAD_AFTER_S):
        return True
    here = worker.host == socket.gethostname()[:60] and worker.boot_id == _boot_id()
    return here and worker.id != f"{worker.host}-{worker.pid}-{_started_at(worker.pid)}"


class Heartbeat:
    """Says every few seconds that this process lives.

    Args:
        database_url: as Settings.database_url.
        identity: of this process.
        queues: whose jobs it runs.
    """

    def __init__(self, database_url: str, identity: ProcessIdentity, queues: Sequence[str]) -> None:
        self._engine = open_sync_engine(sync_url(database_url), poolclass=NullPool)
        self.identity = identity
        self._queues = list(queues)
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._started_at = datetime.now(UTC)
        self._steady_since = math.inf

    @property
    def steady_s(self) -> float:
        """For how long every beat has reached the database."""
        return max(0.0, time.monotonic() - self._steady_since)

    def start(self) -> None:
        """Register, and begin to beat.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        self.beat()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop and unregister, so that other processes take over at once what is left."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(BEAT_EVERY_S)
        try:
            with self._engine.begin() as connection:
                workers.unregister(connection, self.identity.id)
        except SQLAlchemyError as error:
            logger.warning("this process could not unregister; others will find it dead: %s", error)
        self._engine.dispose()

    def beat(self) -> None:
        """One sign of life. A process that was thought dead registers again."""
        try:
            with self._engine.begin() as connection:
                workers.record_heartbeat(connection, self.identity.id, self._values())
        except SQLAlchemyError:
            self._steady_since = math.inf
            raise
        self._steady_since = min(self._steady_since, time.monotonic())

    def _values(self) -> dict[str, object]:
        return {
            "host": self.identity.host,
            "boot_id": self.identity.boot_id,
            "pid": self.identity.pid,
            "queues": self._queues,
            "started_at": self._started_at,
        }

    def _run(self) -> None:
        beats = True
        while not self._stopped.wait(BEAT_EVERY_S):
            try:
                self.beat()
                beats = True
            except SQLAlchemyError as error:
                if beats:
                    logger.warning("this process cannot say that it lives, and goes on trying: %s", error)
                beats = False


def _boot_id() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    known = boot.read_text().strip() if boot.exists() else ""
    return f"{known[:36]} {_pid_namespace()}"[:64]


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started_at(pid: int) -> str:
    """When a process began, in clock ticks since the machine did; empty if no process has this pid."""
    try:
        # The name, in brackets, may hold anything; after it come the state and, 19 later, the start (proc_pid_stat(5)).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""
