"""The pyannote adapter runs a real pipeline with random weights, offline; see `make test-pyannote`."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from backend.domain.transcript import Diarization, SpeakerCount
from backend.engines.pyannote.diarizer import PyannoteDiarizer
from backend.errors import EngineUnavailable, InvalidInput
from tests.support.random_models import as_audio, build_pyannote, silence, vowels

if importlib.util.find_spec("torch") is None:
    pytest.skip("PyTorch is not installed here; run `make test-pyannote`", allow_module_level=True)

pytestmark = [
    # torchcodec finds no FFmpeg; nothing here reads files through it.
    pytest.mark.filterwarnings(r"ignore:\s*torchcodec is not installed:UserWarning"),
    # pyannote pools frames of a voice that is hardly there, and averages over none.
    pytest.mark.filterwarnings(r"ignore:std\(\).*degrees of freedom:UserWarning"),
    pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning"),
    # pyannote reports with a warning that a short recording has fewer speakers than were asked for.
    pytest.mark.filterwarnings(r"ignore:\s*The detected number of speakers:UserWarning"),
]

Run = Callable[..., Diarization]
TALK = np.concatenate(
    [vowels(6, 110), silence(1), vowels(6, 220, seed=3), silence(1), vowels(6, 110, seed=4), vowels(5, 220, seed=7)]
)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_pyannote(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="module")
def engine(model_dir: Path) -> PyannoteDiarizer:
    return PyannoteDiarizer(str(model_dir), device="cpu", threads=2)


@pytest.fixture(scope="module")
def run(engine: PyannoteDiarizer) -> Run:
    def diarize(
        samples: np.ndarray = TALK, speakers: SpeakerCount | None = None, steps: list[float] | None = None
    ) -> Diarization:
        with as_audio(samples) as audio:
            return engine.diarize(audio, speakers or SpeakerCount(), (steps if steps is not None else []).append)

    return diarize


@pytest.fixture(scope="module")
def talk(run: Run) -> Diarization:
    return run()


def speakers_of(diarization: Diarization) -> set[str]:
    return {turn.speaker for turn in diarization.turns}


def test_a_directory_is_a_pipeline_and_the_name_tells_what_runs(engine: PyannoteDiarizer) -> None:
    assert engine.name == "pyannote random (cpu)"


def test_community_1_is_found_in_the_models_directory(model_dir: Path) -> None:
    (model_dir.parent / "community-1").symlink_to(model_dir)
    assert PyannoteDiarizer(models_dir=model_dir.parent, device="cpu").name == "pyannote community-1 (cpu)"


def test_turns_are_sorted_and_inside_the_recording(talk: Diarization) -> None:
    for turns in (talk.turns, talk.exclusive):
        assert turns
        assert list(turns) == sorted(turns, key=lambda turn: turn.start_s)
        assert all(0 <= turn.start_s < turn.end_s <= len(TALK) / 16_000 for turn in turns)


def test_exclusive_turns_do_not_overlap(talk: Diarization) -> None:
    assert all(before.end_s <= after.start_s for before, after in itertools.pairwise(talk.exclusive))


def test_turns_may_overlap(talk: Diarization) -> None:
    assert any(before.end_s > after.start_s for before, after in itertools.pairwise(talk.turns))


def test_both_views_use_the_same_labels(talk: Diarization) -> None:
    assert {turn.speaker for turn in talk.exclusive} <= speakers_of(talk)


@pytest.mark.parametrize("wanted", [1, 2])
def test_the_exact_number_of_speakers_is_honoured(run: Run, wanted: int) -> None:
    assert len(speakers_of(run(speakers=SpeakerCount(exact=wanted)))) == wanted


def test_the_largest_number_of_speakers_is_honoured(run: Run) -> None:
    assert len(speakers_of(run(speakers=SpeakerCount(maximum=1)))) == 1


def test_the_smallest_number_of_speakers_is_honoured(run: Run) -> None:
    assert len(speakers_of(run(speakers=SpeakerCount(minimum=2)))) >= 2


def test_more_speakers_than_pieces_of_speech_is_no_error(run: Run) -> None:
    assert 1 <= len(speakers_of(run(speakers=SpeakerCount(exact=12)))) <= 12


@pytest.mark.parametrize("count", [SpeakerCount(minimum=3, maximum=2), SpeakerCount(exact=0)])
def test_impossible_numbers_of_speakers_are_refused(run: Run, count: SpeakerCount) -> None:
    with pytest.raises(InvalidInput):
        run(speakers=count)


def test_progress_rises_to_one(run: Run) -> None:
    steps: list[float] = []
    run(steps=steps)
    assert len(steps) > 3 and steps == sorted(steps) and steps[-1] == 1.0


def test_thirty_milliseconds_are_no_error(run: Run) -> None:
    assert all(turn.end_s <= 0.03 for turn in run(vowels(0.03)).turns)


def test_the_same_recording_gives_the_same_turns(run: Run, talk: Diarization) -> None:
    assert run() == talk


def test_nothing_is_reported_to_anyone(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forbidden:
        def start_as_current_span(self, name: str) -> NoReturn:
            raise AssertionError(f"telemetry: {name}")

    monkeypatch.setenv("PYANNOTE_METRICS_ENABLED", "1")
    monkeypatch.setattr("pyannote.audio.telemetry.metrics.tracer", Forbidden())
    with as_audio(vowels(2)) as audio:
        PyannoteDiarizer(str(model_dir), device="cpu").diarize(audio, SpeakerCount(), lambda _: None)


def test_a_missing_model_names_every_step_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        EngineUnavailable,
        match=r"accept the conditions on https://huggingface.co/pyannote/speaker-diarization-community-1, "
        r"set HF_TOKEN and run `aperta models pull community-1`",
    ):
        PyannoteDiarizer()


def test_with_a_token_the_token_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EngineUnavailable, match="pull community-1") as caught:
        PyannoteDiarizer(token="hf_secret")
    assert "HF_TOKEN" not in str(caught.value) and "hf_secret" not in str(caught.value)


def test_parts_on_the_hub_are_not_downloaded(tmp_path: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def no_network(*args: object, **_: object) -> NoReturn:
        asked.append(args)
        raise OSError("no network in this test")

    foreign = shutil.copytree(model_dir, tmp_path / "foreign")
    config = foreign / "config.yaml"
    config.write_text(config.read_text().replace("$model/segmentation", "someone/segmentation"))
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    with pytest.raises(EngineUnavailable, match="cannot be loaded on cpu"):
        PyannoteDiarizer(str(foreign), device="cpu")
    assert asked == []


def test_a_damaged_pipeline_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("pipeline: {name: nothing.Here}")
    with pytest.raises(EngineUnavailable, match="cannot be loaded on cpu") as caught:
        PyannoteDiarizer(str(tmp_path), device="cpu")
    assert "\n" not in str(caught.value)


def test_what_progress_raises_comes_out_soon_and_the_engine_works_afterwards(
    engine: PyannoteDiarizer, run: Run, talk: Diarization
) -> None:
    class Stop(Exception):
        pass

    left, called_at = 3, time.monotonic()

    def stop_soon(_fraction: float) -> None:
        nonlocal left, called_at
        assert time.monotonic() - called_at < 2
        left, called_at = left - 1, time.monotonic()
        if left == 0:
            raise Stop

    with as_audio(np.tile(TALK, 20)) as audio:
        called_at = time.monotonic()
        with pytest.raises(Stop):
            engine.diarize(audio, SpeakerCount(), stop_soon)
        assert time.monotonic() - called_at < 2
    assert run() == talk
