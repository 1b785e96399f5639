"""Half an hour takes hardly more memory than three minutes: a recording is heard window by window."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backend.engines.catalogue import find_whisper
from tests.conftest import ROOT, SAMPLE
from tests.support.conversations import samples_of, save
from tests.support.random_models import silence
from tests.whisper.conftest import MODELS_DIR

SPEECH_EVERY_S, MORE_MB, MOST_MB = 180.0, 150, 1_500

PROGRAM = """
import sys
from pathlib import Path
from backend.engines.base import TranscribeOptions
from backend.engines.whisper.transcriber import FasterWhisperTranscriber
from tests.support.media import decode
engine = FasterWhisperTranscriber("base", models_dir=Path(sys.argv[1]), device="cpu")
with decode(Path(sys.argv[2]), max_s=7200) as audio:
    heard = engine.transcribe(audio, TranscribeOptions("en"), None, lambda _: None)
assert len(heard.segments) > 5
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_mb(recording: Path) -> float:
    command = [sys.executable, "-c", PROGRAM, str(MODELS_DIR), str(recording)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) / 1024


@pytest.mark.timeout(1_200)  # a busy machine
def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    if find_whisper("base", MODELS_DIR) is None:
        pytest.skip("Whisper base is not in WHISPER_TEST_MODELS; run `make test-whisper`")
    talk = samples_of(SAMPLE)
    part = np.concatenate([talk, silence(SPEECH_EVERY_S - len(talk) / 16_000)])
    short = peak_mb(save(tmp_path / "short.flac", part))
    long = peak_mb(save(tmp_path / "long.flac", np.tile(part, 10)))
    assert long < short + MORE_MB
    assert long < MOST_MB
