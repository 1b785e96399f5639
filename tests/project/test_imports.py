"""Importing the app is cheap: what is heavy is loaded when it is needed."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

HEAVY = ("torch", "faster_whisper", "ctranslate2", "boto3", "onnxruntime", "moonshine_voice", "av", "scipy")


def test_importing_the_app_loads_no_heavy_library() -> None:
    script = f"import sys, backend.main; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run((sys.executable, "-c", script), cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
