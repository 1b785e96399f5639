"""Real server processes for the acceptance and browser suites, spoken to over HTTP alone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.conftest import ROOT

SERVE = (sys.executable, "-m", "backend.cli", "serve")
WORK = (sys.executable, "-m", "backend.cli", "worker")


@dataclass(frozen=True, slots=True)
class ServerProcess:
    url: str
    process: subprocess.Popen[str]
    log: Path
    folder: Path


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    process: subprocess.Popen[str]
    log: Path
    folder: Path


def environment(folder: Path, **settings: str) -> dict[str, str]:
    """A newcomer's environment: a free port, everything under `folder`, no model hub."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PORT": "0",
        "UPLOAD_DIR": str(folder / "uploads"),
        "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/rows.db",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hub"),
        "AWS_EC2_METADATA_DISABLED": "true",
        **settings,
    }


@contextmanager
def serving(
    folder: Path, command: Sequence[str] = SERVE, *, cwd: Path | None = None, **settings: str
) -> Iterator[ServerProcess]:
    """A server that has said its address; stopped at the end, whatever happened."""
    log = folder / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=cwd or folder, env=environment(folder, **settings), stdout=output, stderr=output, text=True
        )
    try:
        yield ServerProcess(_address(process, log), process, log, folder)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def working(folder: Path, command: Sequence[str] = WORK, **settings: str) -> Iterator[WorkerProcess]:
    """A worker that has its models and takes jobs; stopped at the end, whatever happened."""
    folder.mkdir(exist_ok=True)
    log = folder / "worker.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(folder, **settings), stdout=output, stderr=output, text=True
        )
    try:
        _wait_for_line("works on", process, log)
        yield WorkerProcess(process, log, folder)
    finally:
        process.send_signal(signal.SIGCONT)  # a test may have stopped it
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(url: str, seconds: float = 60) -> None:
    """Return once /health/ready says 204."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if httpx.get(f"{url}/health/ready").status_code == 204:
            return
        time.sleep(0.1)
    raise AssertionError(f"{url} was not ready within {seconds} s")


def _address(process: subprocess.Popen[str], log: Path, seconds: float = 60) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := re.search(r"on (http://\S+)", log.read_text()):
            url = found.group(1)
            try:
                httpx.get(f"{url}/health/live")
                return url
            except httpx.TransportError:
                pass
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"the server did not start:\n{log.read_text()}")


def _wait_for_line(text: str, process: subprocess.Popen[str], log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while text not in log.read_text():
        assert process.poll() is None and time.monotonic() < end, f"the worker did not start:\n{log.read_text()}"
        time.sleep(0.05)
