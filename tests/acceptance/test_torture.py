"""A few rounds of what `python -m benchmarks.storage_torture` runs by the hundred: the harness works and has teeth."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.torture.disk import can_mount
from tests.conftest import ROOT
from tests.support.processes import environment


def torture(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = (
        sys.executable,
        "-m",
        "benchmarks.storage_torture",
        "--stores",
        "local",
        "--folder",
        str(folder),
        *options,
    )
    return subprocess.run(command, cwd=ROOT, env=environment(folder), capture_output=True, text=True, timeout=250)


def figure(report: str, name: str) -> int:
    found = re.search(rf"^\| {name} \| (\d+) \|$", report, re.MULTILINE)
    assert found, report
    return int(found.group(1))


def test_servers_that_are_killed_lose_nothing(tmp_path: Path) -> None:
    done = torture(tmp_path, "--rounds", "3", "--only", "kill -9")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (figure(done.stdout, "rounds"), figure(done.stdout, "kills")) == (3, 3)
    assert figure(done.stdout, "accepted") > 0 and figure(done.stdout, "lost") == 0


def test_a_power_loss_without_fsync_is_found_out(tmp_path: Path) -> None:
    if not can_mount(tmp_path):
        pytest.skip("small disks can be mounted by root alone")
    done = torture(tmp_path, "--no-fsync", "--rounds", "2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert figure(done.stdout, "broken") == 0 and figure(done.stdout, "lost") > 0
