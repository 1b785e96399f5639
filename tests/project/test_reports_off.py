"""Importing any part of Aperta keeps libraries from reporting to their makers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from backend import REPORTS_OFF
from tests.conftest import ROOT

PROGRAMS = ("backend.main", "backend.worker", "backend.cli", "backend.engines.audio.decoder", "benchmarks.pipelines")
SHOW = "import os, sys, json, {}; print(json.dumps([dict(os.environ), 'onnxruntime' in sys.modules]))"


def environment_of(program: str, **inherited: str) -> dict[str, str]:
    """The environment when a program has been imported, which onnxruntime was not."""
    command = [sys.executable, "-c", SHOW.format(program)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | inherited, capture_output=True, text=True, check=True)
    environment, imported = json.loads(done.stdout)
    assert not imported
    return dict(environment)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_switches_reports_off(program: str) -> None:
    assert environment_of(program).items() >= REPORTS_OFF.items()


@pytest.mark.parametrize("value", ["", "0", "1", "true"])
def test_no_inherited_value_switches_reports_on(value: str) -> None:
    inherited = dict.fromkeys(REPORTS_OFF, value)
    assert environment_of("backend", **inherited).items() >= REPORTS_OFF.items()
