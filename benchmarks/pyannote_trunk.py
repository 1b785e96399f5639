"""How much faster speaker embeddings get when the windows of a pyannote pipeline share the trunk of their network.

The networks have random weights; the ResNet34 has its true shape, so its work is the real one and nothing is
downloaded. How many masks are empty differs from real speech, which has more of them. Needs pyannote.audio; run from
the repository: `python -m benchmarks.pyannote_trunk`.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backend.engines.audio.samples import SAMPLE_RATE_HZ
from backend.engines.pyannote.shared_trunk import share_trunk
from tests.pyannote.wespeaker import build_wespeaker
from tests.support.random_models import vowels

if TYPE_CHECKING:
    from pyannote.audio import Pipeline
    from pyannote.core import SlidingWindowFeature

Floats = NDArray[np.float32]


def main() -> None:
    args = _arguments()
    os.environ["PYANNOTE_METRICS_ENABLED"] = "0"
    warnings.simplefilter("ignore")  # torchcodec without FFmpeg, which is not used
    import torch

    torch.set_num_threads(args.threads)
    library, shared = _pipelines(args.device, args.batch_size)
    file = {"waveform": torch.from_numpy(vowels(args.audio_seconds))[None], "sample_rate": SAMPLE_RATE_HZ}
    segmentations = library.get_segmentations(file)
    plain_s, shared_s, difference = _measure(library, shared, file, segmentations, args.repeat)
    machine = platform.processor() or platform.machine()
    where = f"{machine}, {args.threads} threads" if args.device == "cpu" else torch.cuda.get_device_name()
    print(f"{args.audio_seconds:g} s of audio on {where}: {_work(segmentations)}")
    print(f"library       {plain_s:8.2f} s")
    print(f"shared trunk  {shared_s:8.2f} s   {plain_s / shared_s:.2f} times as fast")
    print(f"largest difference of an embedding's value: {difference:.1e}")


def _pipelines(device: str, batch_size: int) -> tuple[Pipeline, Pipeline]:
    """The library's own and ours."""
    import torch
    from pyannote.audio import Pipeline

    with tempfile.TemporaryDirectory() as directory:
        path = build_wespeaker(Path(directory) / "model")
        library, shared = (Pipeline.from_pretrained(path).to(torch.device(device)) for _ in range(2))
    library.embedding_batch_size = shared.embedding_batch_size = batch_size
    assert share_trunk(shared)
    return library, shared


def _measure(
    library: Pipeline, shared: Pipeline, file: dict[str, Any], segmentations: SlidingWindowFeature, repeat: int
) -> tuple[float, float, float]:
    """Best times of both in turns, so that a busy machine slows both, and the largest difference of a value."""
    best, embeddings = [float("inf")] * 2, [np.empty(0)] * 2
    for _ in range(repeat):
        for i, pipeline in enumerate((library, shared)):
            start = time.perf_counter()
            embeddings[i] = pipeline.get_embeddings(file, segmentations, exclude_overlap=True)
            best[i] = min(best[i], time.perf_counter() - start)
    return best[0], best[1], float(np.abs(embeddings[0] - embeddings[1]).max())


def _work(segmentations: SlidingWindowFeature) -> str:
    spoken = segmentations.data.any(axis=1)
    return f"{len(spoken)} windows, {spoken.sum()} of their {spoken.size} speaker masks not empty"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio-seconds", type=float, default=60.0)
    parser.add_argument("--batch-size", type=int, default=32, help="embeddings in a batch (%(default)s)")
    parser.add_argument("--repeat", type=int, default=2, help="runs of each; the best counts (%(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
