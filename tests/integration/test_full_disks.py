"""A disk without space or without inodes, under the uploads, the database or the log alone: refused, nothing lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from backend.config import Settings
from backend.services.storage import StorageConfig
from tests.conftest import api, send
from tests.support.media import tone, write
from tests.support.processes import serving, wait_until_ready

pytestmark = pytest.mark.anyio


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    done = subprocess.run(
        ("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)), capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"needs the right to mount a small disk: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(("umount", "-l", str(folder)), check=True)


def fill(folder: Path) -> Path:
    """Use up every byte."""
    ballast = folder / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return ballast


def use_up_inodes(folder: Path) -> list[Path]:
    made: list[Path] = []
    with suppress(OSError):
        while True:
            path = folder / f"ballast{len(made)}"
            path.touch()
            made.append(path)
    return made


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "meeting.wav", tone(2.0))


def assert_refused(answer: httpx.Response, *statuses: int) -> None:
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == "application/problem+json" and answer.json()["detail"]


async def test_without_inodes_uploads_are_refused_and_taken_again_when_there_are_some(
    settings: Settings, recording: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "size=200m,nr_inodes=80") as disk:
        storage = StorageConfig(upload_dir=str(disk / "uploads"), disk_soft_limit_bytes=0, disk_hard_limit_bytes=0)
        async with api(settings.model_copy(update={"storage": storage})) as (client, _):
            first = (await send(client, recording)).json()
            ballast = use_up_inodes(disk)
            assert_refused(await send(client, recording), 507)
            headers = {"Upload-Length": "5", "Tus-Resumable": "1.0.0"}
            assert_refused(await client.post("/uploads", headers=headers), 507)
            assert (await client.get(f"/conversations/{first['conversation_id']}/audio")).status_code == 200
            for path in ballast:
                path.unlink()
            assert (await send(client, recording)).status_code == 200


async def test_with_a_full_disk_under_the_database_alone_uploads_are_refused_and_nothing_is_lost(
    settings: Settings, recording: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "size=8m") as disk:
        own = settings.model_copy(update={"database_url": f"sqlite+aiosqlite:///{disk}/rows.db"})
        async with api(own) as (client, _):
            first = (await send(client, recording)).json()
            ballast = fill(disk)
            for _ in range(3):
                assert_refused(await send(client, recording, "?async=true"), 503, 507)
            assert (await client.get(f"/conversations/{first['conversation_id']}")).status_code == 200
            ballast.unlink()
            assert (await send(client, recording)).status_code == 200
            listed = (await client.get("/conversations")).json()
            assert first["conversation_id"] in str(listed)


@pytest.mark.timeout(200)
def test_with_a_full_disk_under_the_log_alone_recordings_are_processed(recording: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "logs", "size=256k") as logs:
        (tmp_path / "server.log").symlink_to(logs / "server.log")
        with serving(tmp_path, LOG_LEVEL="debug") as server:
            wait_until_ready(server.url)
            fill(logs)
            with recording.open("rb") as file:
                answer = httpx.post(f"{server.url}/audio/process", files={"file": file}, timeout=100)
            assert answer.status_code == 200, answer.text
            assert httpx.get(f"{server.url}/health/ready").status_code == 204
