"""pyannote.audio contacts no host when it is loaded and run: packets and questions for names are noted."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from tests.support.quiet_network import watch
from tests.support.random_models import build_pyannote

if importlib.util.find_spec("torch") is None:
    pytest.skip("PyTorch is not installed here; run `make test-pyannote`", allow_module_level=True)

# torchcodec finds no FFmpeg; nothing here reads files through it.
pytestmark = pytest.mark.filterwarnings(r"ignore:\s*torchcodec is not installed:UserWarning")

DIARIZE = """
import sys, time
from backend.domain.transcript import SpeakerCount
from backend.engines.pyannote.diarizer import PyannoteDiarizer
from tests.support.random_models import as_audio, vowels
with as_audio(vowels(2)) as audio:
    found = PyannoteDiarizer(sys.argv[1], device="cpu", threads=2).diarize(audio, SpeakerCount(), lambda _: None)
time.sleep(5)
print("diarized with", len(found.turns), "turns")
"""
"""Afterwards the process stays for a while: pyannote's reports go out in the background, after half a second."""


def test_diarizing_asks_for_no_name_and_sends_no_packet(tmp_path: Path) -> None:
    model = build_pyannote(tmp_path / "random")
    seen = watch(tmp_path, sys.executable, "-c", DIARIZE, str(model))
    assert "diarized" in seen.output
    assert (seen.questions, seen.packets) == ([], [])
