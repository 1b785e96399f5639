"""Which machines the installation accepts; the others get one sentence."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.conftest import ROOT

SCRIPT = ROOT / "scripts" / "check_python.py"
MAXSIZE_64_BITS = 2**63 - 1
MAXSIZE_32_BITS = 2**31 - 1

find_machine_obstacle: Callable[[str, int], str | None] = runpy.run_path(str(SCRIPT))["find_machine_obstacle"]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_machines_that_the_models_are_built_for_pass(machine: str) -> None:
    assert find_machine_obstacle(machine, MAXSIZE_64_BITS) is None


@pytest.mark.parametrize("machine", ["armv7l", "i686", "riscv64", ""])
def test_another_machine_is_named(machine: str) -> None:
    obstacle = find_machine_obstacle(machine, MAXSIZE_64_BITS)

    assert obstacle is not None and obstacle.endswith(f"x86-64 and arm64, and this machine is {machine}")


def test_a_python_of_32_bits_on_a_machine_of_64_is_told() -> None:
    assert "64 bits" in (find_machine_obstacle("aarch64", MAXSIZE_32_BITS) or "")


def test_this_python_passes() -> None:
    done = subprocess.run((sys.executable, str(SCRIPT)), capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
