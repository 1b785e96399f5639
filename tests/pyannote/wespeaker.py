"""The random pyannote pipeline of the other tests, with the kind of speaker network that community-1 has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.random_models import N_EMBEDDING, build_pyannote


def build_wespeaker(directory: Path, *, seed: int = 0) -> Path:
    """Write a pipeline whose embedding/ is a WeSpeaker ResNet34 of the true shape, with random weights."""
    import lightning
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding import WeSpeakerResNet34

    build_pyannote(directory, seed=seed)
    model = WeSpeakerResNet34()
    assert model.dimension == N_EMBEDDING
    model.specifications = Specifications(
        problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=5.0, classes=["somebody"]
    )
    checkpoint: dict[str, Any] = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "pytorch-lightning_version": lightning.__version__,
    }
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, directory / "embedding" / "pytorch_model.bin")
    return directory
