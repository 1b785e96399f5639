"""Sharing the trunk changes how often the speaker network runs, and no result; see `make test-pyannote`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from backend.domain.transcript import SpeakerCount
from backend.engines.pyannote.diarizer import PyannoteDiarizer
from backend.engines.pyannote.shared_trunk import share_trunk
from tests.pyannote.wespeaker import build_wespeaker
from tests.support.random_models import as_audio, build_pyannote, silence, vowels

if importlib.util.find_spec("torch") is None:
    pytest.skip("PyTorch is not installed here; run `make test-pyannote`", allow_module_level=True)

if TYPE_CHECKING:
    from pyannote.audio import Pipeline
    from pyannote.core import SlidingWindowFeature

pytestmark = [
    # torchcodec finds no FFmpeg; nothing here reads files through it.
    pytest.mark.filterwarnings(r"ignore:\s*torchcodec is not installed:UserWarning"),
    # pyannote looks for the shortest input of the network by trying, down to a single frame.
    pytest.mark.filterwarnings(r"ignore:std\(\).*degrees of freedom:UserWarning"),
    # pyannote averages over the voices it could learn from, of which a single window may have none.
    pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning"),
]

TALK = np.concatenate([vowels(6, 110), silence(1), vowels(6, 220, seed=3), silence(1), vowels(6, 110, seed=4)])
N_SPEAKERS = 3  # in each window of the random model
N_FRAMES_OF_A_WINDOW = 998  # of the filter bank: 10 s


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wespeaker(tmp_path_factory.mktemp("models") / "wespeaker")


def load(model_dir: Path) -> Pipeline:
    from pyannote.audio import Pipeline

    return Pipeline.from_pretrained(model_dir)


@pytest.fixture(scope="module")
def library(model_dir: Path) -> Pipeline:
    return load(model_dir)


@pytest.fixture(scope="module")
def shared(model_dir: Path) -> Pipeline:
    pipeline = load(model_dir)
    assert share_trunk(pipeline)
    return pipeline


@pytest.fixture(scope="module")
def segmentations(library: Pipeline) -> SlidingWindowFeature:
    """Who speaks when in the windows of TALK; nobody in the second, and one speaker is missing in the third."""
    found = library.get_segmentations(talk())
    assert found.data.any(axis=1).all() and len(found.data) >= 3
    found.data[1] = 0.0
    found.data[2, :, 1] = 0.0
    return found


def talk() -> dict[str, Any]:
    import torch

    return {"waveform": torch.from_numpy(TALK)[None], "sample_rate": 16_000}


@contextmanager
def counting_windows(pipeline: Pipeline) -> Iterator[list[int]]:
    """How many windows each pass through the ResNet has."""
    passes: list[int] = []

    def note(_: object, inputs: tuple[Any, ...]) -> None:
        if inputs[0].shape[-1] == N_FRAMES_OF_A_WINDOW:
            passes.append(len(inputs[0]))

    handle = pipeline._embedding.model_.resnet.conv1.register_forward_pre_hook(note)
    try:
        yield passes
    finally:
        handle.remove()


def test_embeddings_are_those_of_the_library(
    library: Pipeline, shared: Pipeline, segmentations: SlidingWindowFeature
) -> None:
    expected, got = (
        pipeline.get_embeddings(talk(), segmentations, exclude_overlap=True) for pipeline in (library, shared)
    )
    assert np.isfinite(expected).all() and expected.std(axis=(0, 1)).max() > 0.01  # they are not all the same
    assert got.dtype == expected.dtype
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-6)


def test_the_diarization_is_that_of_the_library(library: Pipeline, shared: Pipeline) -> None:
    expected, got = library(talk()), shared(talk())
    assert len(expected.speaker_diarization.labels()) > 1
    assert got.speaker_diarization == expected.speaker_diarization
    assert got.exclusive_speaker_diarization == expected.exclusive_speaker_diarization
    np.testing.assert_allclose(got.speaker_embeddings, expected.speaker_embeddings, rtol=1e-5, atol=2e-6)


def test_each_window_with_speech_passes_the_network_once(shared: Pipeline, segmentations: SlidingWindowFeature) -> None:
    with counting_windows(shared) as passes:
        shared.get_embeddings(talk(), segmentations)
    assert sum(passes) == len(segmentations.data) - 1


def test_an_empty_mask_is_skipped(library: Pipeline, shared: Pipeline) -> None:
    import torch

    waveforms, masks = torch.from_numpy(vowels(10)).repeat(2, 1, 1), torch.zeros(2, 589)
    with counting_windows(shared) as passes:
        got = shared._embedding(waveforms, masks=masks)
    assert passes == []
    np.testing.assert_allclose(got, library._embedding(waveforms, masks=masks), rtol=1e-5, atol=2e-6)


def test_different_windows_are_not_mixed_up(library: Pipeline, shared: Pipeline) -> None:
    import torch

    first, second = (torch.from_numpy(vowels(2, seed=seed))[None] for seed in (1, 2))
    waveforms = torch.stack([first, second, second, first])
    masks = torch.from_numpy(np.random.default_rng(0).integers(0, 2, (4, 100)).astype(np.float32))
    expected = library._embedding(waveforms, masks=masks)
    np.testing.assert_allclose(shared._embedding(waveforms, masks=masks), expected, rtol=1e-5, atol=2e-6)
    whole = library._embedding(waveforms)
    np.testing.assert_allclose(shared._embedding(waveforms), whole, rtol=1e-5, atol=2e-6)


def test_batches_hold_whole_windows(library: Pipeline, shared: Pipeline) -> None:
    assert library.embedding_batch_size == 4
    assert shared.embedding_batch_size == 2 * N_SPEAKERS


def test_the_engine_shares(model_dir: Path) -> None:
    engine = PyannoteDiarizer(str(model_dir), device="cpu")
    with as_audio(vowels(8)) as audio, counting_windows(engine._pipeline) as passes:
        engine.diarize(audio, SpeakerCount(), lambda _: None)
    assert sum(passes) == 1


def test_other_networks_are_left_alone(tmp_path: Path) -> None:
    pipeline = load(build_pyannote(tmp_path / "random"))
    embedding = pipeline._embedding
    assert not share_trunk(pipeline)
    assert pipeline._embedding is embedding and pipeline.embedding_batch_size == 4


def test_a_wespeaker_network_with_a_forward_pass_of_its_own_is_left_alone(model_dir: Path) -> None:
    from pyannote.audio.models.embedding import WeSpeakerResNet34

    class Louder(WeSpeakerResNet34):
        def forward(self, waveforms: Any, weights: Any = None) -> Any:
            return super().forward(2 * waveforms, weights)

    pipeline = load(model_dir)
    pipeline._embedding.model_.__class__ = Louder
    assert not share_trunk(pipeline)


def test_sharing_twice_is_sharing_once(model_dir: Path) -> None:
    pipeline = load(model_dir)
    assert [share_trunk(pipeline), share_trunk(pipeline)] == [True, False]
