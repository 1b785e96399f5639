"""Servers under test. They are forked from a process that has imported everything, so that a restart takes no time.

    python -m benchmarks.torture.nursery

An order is a line of JSON on standard input; the answer is the pid. What is forked is `aperta serve` itself, or another
`aperta` command, with scripted engines: storage is under load, not speech. With `fsync` off, nothing that Python writes
is made durable, for a harness that must find this out.
"""

# It replaces functions of the product by others, which mypy takes for mistakes.
# mypy: disable-error-code="assignment, attr-defined"

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOOK_AROUND_S, DELETES_S, BUSY_TIMEOUT_MS = 0.5, 1.0, 400


@dataclass(frozen=True, slots=True)
class Order:
    """One process to fork.

    Attributes:
        command: after `aperta`.
        environment: all of it.
        log: standard output and errors, appended.
        pipe: where a server reads when to kill itself.
        status: where the exit status is written, if the process lives to its end.
        hasty: shorten every wait that a test would only sit through.
    """

    command: list[str]
    environment: dict[str, str]
    folder: str
    log: str
    output: str | None = None
    pipe: str | None = None
    status: str | None = None
    fsync: bool = True
    hasty: bool = True


class Nursery:
    """The process that servers are forked from, as the harness sees it."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.torture.nursery"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lock = asyncio.Lock()

    async def fork(self, order: Order) -> Child:
        async with self._lock:
            return await asyncio.to_thread(self.fork_now, order)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(20)

    def fork_now(self, order: Order) -> Child:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the nursery has died")
        return Child(int(answer))


@dataclass
class Child:
    """A forked process. It is no child of this process, so it is watched by a file descriptor."""

    pid: int
    _fd: int = field(init=False)

    def __post_init__(self) -> None:
        self._fd = os.pidfd_open(self.pid)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._fd, number)

    def signal_all(self, number: int) -> None:
        """The process and what it has started."""
        self.signal(number)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    async def wait(self, seconds: float) -> bool:
        """Whether it has ended, after `seconds` at most."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._fd, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), seconds)
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._fd)
        return True

    @property
    def alive(self) -> bool:
        """A signal still reaches a process that has ended and is not yet gone; its descriptor says that it ended."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return not poll.poll(0)


def main() -> None:
    preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # this process does not wait for them
    pids = []
    while line := sys.stdin.readline():
        order = Order(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            os._exit(run(order))
        pids.append(pid)
        print(pid, flush=True)
    for pid in pids:  # the process that ordered them has ended, perhaps without saying so
        if _is_ours(pid):
            os.killpg(pid, signal.SIGKILL)


def preload() -> None:
    """Everything that takes time to import and starts no threads."""
    for name in (
        "aiosqlite",
        "backend.cli",
        "backend.main",
        "backend.services.storage.stores.s3.store",
        "boto3.s3.transfer",
        "botocore.httpsession",
        "dbos",
        "dbos._dbos",
        "tests.conftest",
        "uvicorn.protocols.http.httptools_impl",
        "uvloop",
    ):
        __import__(name)


def run(order: Order) -> int:
    """In the child: become the process that was ordered. Returns its exit status."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _redirect(order)
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.folder)
    prepare(order)
    status = _run_command(order.command)
    sys.stdout.flush()
    sys.stderr.flush()
    if order.status:
        Path(order.status).write_text(str(status))
    return status


def prepare(order: Order) -> None:
    """Scripted engines, short waits, and a way to die."""
    from backend.database import session
    from backend.services.jobs.schedule import table as schedule
    from backend.services.speech import pipeline
    from backend.wiring import engines
    from tests.conftest import scripted_speech

    engines.open_speech = lambda _settings: scripted_speech()
    pipeline.probe = _probe
    pipeline.decode_tracks = _decode
    if order.hasty:
        schedule.LOOK_AROUND_EVERY_S = schedule.LOOK_AROUND_QUIET_S = LOOK_AROUND_S
        schedule.LOOK_FOR_LEFTOVERS_QUIET_S = LOOK_AROUND_S
        schedule.DELETES_EVERY_S = DELETES_S
        session.SQLITE_PRAGMAS = tuple(
            f"busy_timeout={BUSY_TIMEOUT_MS}" if pragma.startswith("busy_timeout") else pragma
            for pragma in session.SQLITE_PRAGMAS
        )
    if not order.fsync:
        os.fsync = lambda _descriptor: None
    if order.pipe:
        from benchmarks.torture.killing import Executioner

        Executioner(Path(order.pipe))


def _is_ours(pid: int) -> bool:
    """Whether a process still runs; its pid may be another one's by now."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    return f"\nPPid:\t{os.getpid()}\n" in status


def _redirect(order: Order) -> None:
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    out = os.open(order.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) if order.output else log
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (log, 2)):
        os.dup2(source, target)


def _run_command(command: list[str]) -> int:
    from backend.cli import app

    try:
        app(command)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        return 99
    return 0


def _probe(_path: Path, _options: object = None) -> Any:
    from backend.engines.audio.probe import MediaInfo

    return MediaInfo("wav", "pcm_s16le", 16_000, 1, 0.1)


def _decode(_path: Path, **_options: object) -> Any:
    """A tenth of a second of silence for any bytes."""
    from backend.engines.audio.samples import Audio

    samples = tempfile.TemporaryFile()  # noqa: SIM115  Audio closes it
    samples.write(bytes(4 * 1600))
    samples.flush()
    return (Audio(samples, 1600, _probe(_path)),)


if __name__ == "__main__":
    main()
