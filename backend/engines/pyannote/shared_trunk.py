"""One pass of the speaker network for each window of a pyannote pipeline; its numbers stay those of the library.

pyannote.audio 4 asks for one embedding for each local speaker of a window, and hands over the same samples each time.
Of a WeSpeaker network only the last, small part looks at the speaker's mask (statistics pooling and one linear layer),
so the filter bank and the ResNet before it run once here, and are skipped where there is no speech.

Masks, windows and clustering remain the library's; so do all other embedding models.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from pyannote.audio import Pipeline


def share_trunk(pipeline: Pipeline) -> bool:
    """Make a diarization pipeline run its WeSpeaker network once for each window; leave any other pipeline alone.

    Only this instance changes: its embedding object, and its embedding batch size, rounded up to whole windows.

    Returns:
        Whether the network is shared now.
    """
    embedding = getattr(pipeline, "_embedding", None)
    if not _is_shareable(embedding):
        return False
    pipeline._embedding = _sharing(embedding)
    pipeline.embedding_batch_size += -pipeline.embedding_batch_size % _n_local_speakers(pipeline)
    return True


def _is_shareable(embedding: Any) -> bool:
    """The library's own object around a WeSpeaker network whose forward pass is that of the library."""
    try:
        from pyannote.audio.models.embedding.wespeaker import BaseWeSpeakerResNet
        from pyannote.audio.pipelines.speaker_verification import PyannoteAudioPretrainedSpeakerEmbedding
    except ImportError:  # another version of the library
        return False
    model = getattr(embedding, "model_", None)
    return (
        type(embedding) is PyannoteAudioPretrainedSpeakerEmbedding
        and isinstance(model, BaseWeSpeakerResNet)
        and all(hasattr(model, name) for name in ("forward_frames", "forward_embedding"))
        and type(model).forward is BaseWeSpeakerResNet.forward
        and not getattr(model, "fbank_only", False)
    )


def _n_local_speakers(pipeline: Pipeline) -> int:
    """How many embeddings a window has; 1 if this version does not tell, which costs repeated work and nothing else."""
    try:
        return len(pipeline._segmentation.model.specifications.classes) or 1
    except (AttributeError, TypeError):
        return 1


def _sharing(embedding: Any) -> Any:
    """The same model on the same device in an object that shares the trunk."""
    import torch
    from pyannote.audio.pipelines.speaker_verification import PyannoteAudioPretrainedSpeakerEmbedding

    class SharedTrunkEmbedding(PyannoteAudioPretrainedSpeakerEmbedding):  # type: ignore[misc]  # here: imported late
        def __call__(self, waveforms: torch.Tensor, masks: torch.Tensor | None = None) -> NDArray[np.float32]:
            """(n, 1, n_samples) waveforms and (n, n_frames) masks to (n, dimension) embeddings."""
            if masks is None or masks.dim() != 2:
                embeddings: NDArray[np.float32] = super().__call__(waveforms, masks=masks)
                return embeddings
            with torch.inference_mode():
                spoken = masks.any(dim=1)
                embeddings = self._of_nobody.repeat(len(masks), 0)
                if spoken.any():
                    embeddings[spoken.numpy(force=True)] = self._embed(waveforms[spoken], masks[spoken])
                return embeddings

        def _embed(self, waveforms: torch.Tensor, masks: torch.Tensor) -> NDArray[np.float32]:
            is_new = _differs_from_the_one_before(waveforms)
            frames = self.model_.forward_frames(waveforms[is_new].to(self.device))
            of_mask = frames[(is_new.cumsum(0) - 1).to(self.device)]
            return _as_array(self.model_.forward_embedding(of_mask, weights=masks.to(self.device)))

        @cached_property
        def _of_nobody(self) -> NDArray[np.float32]:
            """(1, dimension): the library's result for an empty mask, which does not depend on the samples.

            Its weighted sums are all zero, so this is no NaN but the bias of the last layer. The clustering does not
            train on it and throws its assignment away, yet takes a minimum over all distances, so the value counts.
            """
            a_second = torch.zeros(1, 1, self.sample_rate, device=self.device)
            frames = self.model_.forward_frames(a_second)
            empty = torch.zeros(1, 1, device=self.device)
            return _as_array(self.model_.forward_embedding(frames, weights=empty))

    return SharedTrunkEmbedding(embedding.model_, device=embedding.device)


def _differs_from_the_one_before(waveforms: torch.Tensor) -> torch.Tensor:
    """(n,) bool; the first is always new."""
    import torch

    is_new = torch.ones(len(waveforms), dtype=torch.bool, device=waveforms.device)
    is_new[1:] = (waveforms[1:] != waveforms[:-1]).flatten(1).any(dim=1)
    return is_new


def _as_array(tensor: torch.Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.numpy(force=True)
    return array
