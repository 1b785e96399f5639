"""Whichever way Aperta is started, other users of the machine read nothing of it, and it leaves no core dump."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT, SAMPLE
from tests.support.processes import SERVE, environment, serving, wait_until_ready, working

UVICORN = (sys.executable, "-m", "uvicorn", "--factory", "backend.main:create_app", "--port", "0")
APERTA = (sys.executable, "-m", "backend.cli")


@pytest.fixture(autouse=True)
def _usual_umask() -> object:
    before = os.umask(0o022)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    """Databases, locks and everything of the uploads that group or others may use."""
    found = [*folder.glob("rows*"), folder / "uploads", *(folder / "uploads").rglob("*")]
    assert len(found) > 2
    return [str(path) for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077]


def leaves_no_core(pid: int) -> bool:
    [line] = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in line]
    return line.split()[4:6] == ["0", "0"]


@pytest.mark.parametrize("command", [SERVE, (sys.executable, str(ROOT / "backend" / "main.py"))], ids=["serve", "main"])
def test_a_server_keeps_its_files_for_itself(tmp_path: Path, command: Sequence[str]) -> None:
    with serving(tmp_path, command) as server:
        wait_until_ready(server.url)
        with SAMPLE.open("rb") as file:
            assert httpx.post(f"{server.url}/audio/process", files={"file": file}, timeout=200).status_code == 200
        assert open_to_others(tmp_path) == []
        assert leaves_no_core(server.process.pid)


def test_a_server_that_is_started_by_uvicorn_keeps_its_files_for_itself(tmp_path: Path) -> None:
    with serving(tmp_path, UVICORN) as server:
        assert open_to_others(tmp_path) == [] and leaves_no_core(server.process.pid)


def test_a_worker_keeps_its_files_for_itself(tmp_path: Path) -> None:
    with working(tmp_path) as worker:
        assert open_to_others(tmp_path) == [] and leaves_no_core(worker.process.pid)


@pytest.mark.parametrize("arguments", [("process", str(SAMPLE)), ("migrate",), ("storage", "verify")])
def test_a_command_keeps_its_files_for_itself(tmp_path: Path, arguments: Sequence[str]) -> None:
    (tmp_path / "uploads").mkdir(mode=0o700)
    subprocess.run((*APERTA, *arguments), cwd=tmp_path, env=environment(tmp_path), check=True, capture_output=True)
    assert [name for name in open_to_others(tmp_path) if not name.endswith("server.log")] == []


def test_what_an_older_version_left_open_is_closed_at_the_start_and_said_once(tmp_path: Path) -> None:
    subprocess.run((*APERTA, "migrate"), cwd=tmp_path, env=environment(tmp_path), check=True, capture_output=True)
    recording = tmp_path / "uploads" / "conv_1" / "2026" / "01" / "15" / "a.wav"
    recording.parent.mkdir(parents=True)
    recording.write_bytes(b"x")
    (tmp_path / "rows.db").chmod(0o644)
    for log in ("were open", ""):
        with serving(tmp_path) as server:
            assert open_to_others(tmp_path) == []
            assert ("were open to other users" in server.log.read_text()) == bool(log)


def test_files_of_other_programs_beside_the_recordings_stay_as_they_are(tmp_path: Path) -> None:
    foreign = tmp_path / "uploads" / "2026" / "a.wav"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"x")
    with serving(tmp_path) as server:
        assert stat.S_IMODE(foreign.stat().st_mode) == 0o644 and stat.S_IMODE(foreign.parent.stat().st_mode) == 0o755
        assert set(open_to_others(tmp_path)) == {str(path) for path in (tmp_path / "uploads", foreign.parent, foreign)}
        assert "stays open to other users" in server.log.read_text()
