"""STORAGE_GUIDE.md's commands, as they stand there: an outage of a real S3 server, verify, repair, rebuild, backup."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.config import Settings
from backend.services.storage import StorageConfig
from tests.conftest import ROOT
from tests.support.fixtures_storage import new_bucket, s3_client
from tests.support.media import silence, write
from tests.support.processes import ServerProcess, environment, serving
from tests.support.servers import S3Server, Swift, swift_venv

GUIDE = (ROOT / "STORAGE_GUIDE.md").read_text(encoding="utf-8")
ADDRESS, STORE, BUCKET = "http://127.0.0.1:8000", "http://127.0.0.1:8080", "recordings"
NOT_RUN = ("UPLOAD_DIR=/srv/aperta make run",)
"""It does what `make run` does, which the README's test knows, and never ends."""


APERTA = f"""#!/bin/sh
case "$2" in verify|repair) set -- "$@" --grace 0s ;; esac
exec {sys.executable} -m backend.cli "$@"
"""
"""An orphan counts after an hour; nobody is to wait for that."""


@dataclass(frozen=True)
class Done:
    """A command of the guide that was run."""

    command: str
    status: int
    output: str


def section(title: str) -> str:
    """The text below a heading, up to the next one that is not below it."""
    marks = title.split(" ", 1)[0]
    found = re.search(rf"^{re.escape(title)}\n(.*?)(?=^#{{1,{len(marks)}}} |\Z)", GUIDE, re.DOTALL | re.MULTILINE)
    assert found, title
    return found.group(1)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[str]:
    """What stands after `$ `, with the lines that belong to it."""
    found: list[str] = []
    is_open = False
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append(line[2:])
        elif is_open:
            found[-1] += f"\n{line}"
        is_open = bool(found) and (found[-1].endswith("\\") or _in_quotes(found[-1]))
    return found


def _in_quotes(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:
        return True
    return False


@dataclass
class Place:
    """A folder in which the guide's commands mean the servers of this test."""

    folder: Path
    store: S3Server
    bucket: str
    server: ServerProcess | None = None

    @property
    def settings(self) -> dict[str, str]:
        return {
            "UPLOAD_DIR": "./uploads",
            "DATABASE_URL": "sqlite+aiosqlite:///./aperta.db",
            "DIARIZATION_ENGINE": "none",
            "S3_BUCKET_NAME": self.bucket,
            "S3_ENDPOINT_URL": self.store.url,
            "S3_REGION": "us-east-1",
            "S3_SERVER_SIDE_ENCRYPTION": "none",
            "S3_RETRY_AFTER_S": "1",
            "S3_CONNECT_TIMEOUT_S": "0.5",
            "AWS_ACCESS_KEY_ID": self.store.access_key,
            "AWS_SECRET_ACCESS_KEY": self.store.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def run(self, block: str, **more: str) -> list[Done]:
        """Run each command of a block; those of programs that are not installed here are left out."""
        return [self._run(command, more) for command in commands(block) if self._can_run(command)]

    def _run(self, command: str, more: dict[str, str]) -> Done:
        script = command.replace(STORE, self.store.url).replace(f"s3://{BUCKET}", f"s3://{self.bucket}")
        script = script.replace("/backup/", f"{self.folder}/backup/")
        if self.server:
            script = script.replace(ADDRESS, self.server.url)
        done = subprocess.run(
            ("bash", "-c", script),
            cwd=self.folder,
            env=self._environment() | more,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Traceback" not in done.stderr and "command not found" not in done.stderr, done.stderr
        return Done(command, done.returncode, done.stdout)

    def _environment(self) -> dict[str, str]:
        found = environment(self.folder, **self.settings)
        return found | {"PATH": f"{self.folder / 'bin'}:{found['PATH']}"}

    def _can_run(self, command: str) -> bool:
        program = next(word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word))
        return program == "aperta" or shutil.which(program) is not None

    def storage_info(self) -> dict[str, Any]:
        assert self.server
        info: dict[str, Any] = httpx.get(f"{self.server.url}/audio/storage-info").json()
        return info

    def until_drained(self, limit_s: float = 60) -> None:
        end = time.monotonic() + limit_s
        while (info := self.storage_info())["drain_pending_objects"] or not info["s3_enabled"]:
            assert time.monotonic() < end, info
            time.sleep(0.2)

    def objects(self) -> list[str]:
        client = s3_client(self.store)
        listed = client.list_objects_v2(Bucket=self.bucket).get("Contents", ())
        client.close()
        return sorted(item["Key"] for item in listed)

    def files(self) -> list[Path]:
        """What is below ./uploads and not hidden."""
        found = (self.folder / "uploads").rglob("*")
        return [
            path
            for path in found
            if path.is_file() and not path.relative_to(self.folder / "uploads").parts[0].startswith(".")
        ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """A store of its own, because it is killed."""
    venv = swift_venv()
    if venv is None:
        pytest.skip("OpenStack Swift is not installed: `make test-servers` does it.")
    swift = Swift(venv, tmp_path_factory.mktemp("swift"))
    try:
        swift.start()
        yield swift
    finally:
        swift.kill()


@pytest.fixture
def place(store: Swift, tmp_path: Path) -> Iterator[Place]:
    """A server with a bucket, and a recording where the guide has one."""
    aperta = tmp_path / "bin" / "aperta"
    aperta.parent.mkdir()
    aperta.write_text(APERTA)
    aperta.chmod(0o755)
    (tmp_path / "samples").mkdir()
    write(tmp_path / "samples" / "meeting.flac", silence(0.5), codec="flac")
    (tmp_path / "backup").mkdir()
    client = s3_client(store.server)
    found = Place(tmp_path, store.server, new_bucket(client))
    client.close()
    with serving(tmp_path, **found.settings) as found.server:
        yield found


def answer(done: Done) -> dict[str, Any]:
    """The JSON that a command printed."""
    assert done.status == 0, done
    found: dict[str, Any] = json.loads(done.output)
    return found


def test_an_outage_goes_as_the_guide_tells(place: Place, store: Swift) -> None:
    """S3 up, killed, up again: where each object is, and what storage-info says, at each point."""
    up, killed, again = blocks(section("### An outage step by step"), "console")

    first, info, *_ = place.run(up)
    assert answer(first)["audio_file_path"].startswith(f"s3://{place.bucket}/audio/")
    assert (answer(info)["storage_type"], answer(info)["drain_pending_objects"]) == ("s3", 0)
    assert (len(place.objects()), place.files()) == (3, [])

    store.kill()
    second, info, *listed = place.run(killed)
    told = answer(second)
    assert told["audio_file_path"].startswith("./uploads/") and "s3 could not be used" in told["warnings"][0]
    assert answer(info)["storage_type"] == "local"
    assert (answer(info)["s3_enabled"], answer(info)["drain_pending_objects"]) == (False, 3)
    assert len(place.files()) == 3 and told["audio_file_path"].removeprefix("./") in listed[-1].output

    store.start()
    place.until_drained()
    info, *listed = place.run(again)
    assert (answer(info)["storage_type"], answer(info)["drain_pending_objects"]) == ("s3", 0)
    assert (len(place.objects()), place.files()) == (6, [])
    moved = told["audio_file_path"].removeprefix("./uploads/")
    assert f"audio/{moved}" in place.objects()
    assert place.server
    link = f"{place.server.url}/conversations/{told['conversation_id']}/audio"
    assert httpx.get(link, follow_redirects=True).content == (place.folder / "samples" / "meeting.flac").read_bytes()
    if shutil.which("aws"):
        assert f"audio/{moved}" in "".join(done.output for done in listed)


def test_the_probe_finds_the_store_usable(place: Place) -> None:
    [block] = blocks(section("## What an endpoint can do"), "console")
    [probe] = place.run(block)
    assert probe.status == 0 and probe.output.rstrip().endswith("Aperta can use it.")


def test_verify_repair_and_rebuild_do_what_the_guide_says(place: Place) -> None:
    assert place.server
    for _ in range(2):
        with (place.folder / "samples" / "meeting.flac").open("rb") as recording:
            httpx.post(f"{place.server.url}/audio/process", files={"file": recording}, timeout=60).raise_for_status()
    conversations = httpx.get(f"{place.server.url}/conversations").json()
    text = section("## Verify, repair, rebuild")
    orphan = place.folder / "uploads" / "conv_x" / "2026" / "01" / "15" / "meeting.flac"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"nobody's")

    look, clear, _move, rebuild, over_http = blocks(text, "console")
    verify, repair = place.run(look)
    [emptied] = place.run(clear)
    orphan.unlink()
    [rebuilt] = place.run(rebuild)

    assert (verify.status, repair.status) == (1, 1) and "1 orphan" in verify.output and "quarantine" in repair.output
    assert (emptied.status, rebuilt.status) == (0, 0) and "2 rebuilt" in rebuilt.output
    assert [answer(done)["counts"] for done in place.run(over_http)] == [{}, {}]
    with serving(place.folder, **place.settings | {"DATABASE_URL": "sqlite+aiosqlite:///./new.db"}) as other:
        assert httpx.get(f"{other.url}/conversations").json() == conversations


def test_the_backup_can_be_restored(place: Place) -> None:
    [block] = blocks(section("## Backup and restore"), "console")
    for done in place.run(block):
        assert done.status == 0, done
    if shutil.which("sqlite3"):
        with closing(sqlite3.connect(place.folder / "backup" / "aperta.db")) as backup:
            assert backup.execute("SELECT count(*) FROM stored_objects").fetchone() == (0,)


def test_the_queries_can_be_asked(place: Place) -> None:
    queries = "".join(blocks(GUIDE, "sql"))
    with closing(sqlite3.connect(place.folder / "aperta.db")) as rows:
        rows.executescript(queries)
    assert queries.count(";") >= 3


def test_the_buckets_of_aws_are_made_as_the_guide_says(tmp_path: Path) -> None:
    """Against moto, which knows all of these calls."""
    if shutil.which("aws") is None:
        pytest.skip("the AWS command line is not installed")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        account = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
        wanted = [
            *blocks(section("## S3 on AWS"), "console"),
            *blocks(section("### Uploads straight to the bucket"), "console"),
        ]
        for command in [command for block in wanted for command in commands(block)]:
            done = subprocess.run(
                ("bash", "-c", command),
                env=environment(tmp_path, **account),
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, (command, done.stderr)
    finally:
        server.stop()


def test_every_command_of_the_guide_is_run_somewhere_here() -> None:
    run = [
        "### An outage step by step",
        "## What an endpoint can do",
        "## Verify, repair, rebuild",
        "## Backup and restore",
        "## S3 on AWS",
        "### Uploads straight to the bucket",
    ]
    known = {command for title in run for block in blocks(section(title), "console") for command in commands(block)}
    there = {command for block in blocks(GUIDE, "console") for command in commands(block)}
    assert there == known
    assert [block.strip() for block in blocks(GUIDE, "bash")] == list(NOT_RUN)


def test_every_setting_in_an_example_exists() -> None:
    names = {
        line.split("=")[0] for block in blocks(GUIDE, "ini") for line in block.splitlines() if line and line[0] != "#"
    }
    fields = {name.upper() for config in (Settings, StorageConfig) for name in config.model_fields}
    assert names and names <= fields
