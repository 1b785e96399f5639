"""The benchmarks run what the product runs: if one no longer does, it is known here and not when figures are due."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.pipelines import run

SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "meeting.flac"


@pytest.mark.parametrize("pipeline", ["aperta", "aperta-diarizer"])
def test_a_benchmarked_pipeline_hears_the_sample(pipeline: str) -> None:
    pytest.importorskip("moonshine_voice")
    heard = run(pipeline, SAMPLE, 2)
    assert heard.speakers == 3
    assert heard.audio_s == pytest.approx(33, abs=1)
    assert {"decode", "diarize"} <= heard.stages.keys()
    if pipeline == "aperta":
        assert {speaker for _, _, speaker, _ in heard.segments} == {"Speaker 1", "Speaker 2", "Speaker 3"}
