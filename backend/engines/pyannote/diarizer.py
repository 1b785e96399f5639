"""Speaker diarization through pyannote.audio 4 (community-1 by default). Needs PyTorch; never downloads, sends nothing.

Loading a pipeline unpickles its checkpoints, so a model directory is code: take it only from a source you trust.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import SecretStr

from backend.domain.transcript import Diarization, SpeakerCount, SpeakerTurn
from backend.engines.audio.samples import SAMPLE_RATE_HZ, Audio
from backend.engines.base import Progress
from backend.engines.catalogue import KNOWN_MODELS, find_pyannote
from backend.engines.progress import watched
from backend.engines.pyannote.shared_trunk import share_trunk
from backend.errors import EngineUnavailable, InvalidInput

if TYPE_CHECKING:
    import torch
    from pyannote.audio import Pipeline
    from pyannote.audio.pipelines.speaker_diarization import DiarizeOutput
    from pyannote.core import Annotation

_log = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]

_LICENCE_PAGE = f"https://huggingface.co/{KNOWN_MODELS['community-1'].repo}"

# Where a stage starts and how long it is, as fractions of the run; the embeddings take nearly all of it on a CPU.
_STAGES = {"segmentation": (0.0, 0.15), "embeddings": (0.15, 0.8)}


class PyannoteDiarizer:
    """A loaded pyannote pipeline.

    Args:
        model: "community-1", a hub repository that is in the cache, or a directory with a config.yaml.
        token: the hub token, only to say in an error what is still missing; loading needs none.
        models_dir: where named models are looked for before the user's hub cache.
        device: "auto" takes CUDA if there is a device.
        threads: PyTorch's CPU threads, a setting of the whole process; 0 leaves it alone.

    Raises:
        EngineUnavailable: the packages, the model or the device is missing.
    """

    def __init__(
        self,
        model: str = "community-1",
        *,
        token: SecretStr | str | None = None,
        models_dir: Path | None = None,
        device: Device = "auto",
        threads: int = 0,
    ) -> None:
        path = find_pyannote(model, models_dir)
        if path is None:
            raise EngineUnavailable(_missing(model, token))
        self._pipeline, used = _load(path, device, threads)
        self.name = f"pyannote {Path(model).name} ({used})"

    def diarize(self, audio: Audio, speakers: SpeakerCount, progress: Progress) -> Diarization:
        """Speaker turns, with overlaps in `turns` and without in `exclusive`, inside [0, audio.duration_s].

        Raises:
            InvalidInput: the numbers of speakers contradict each other.
        """
        # A batch cannot be interrupted: who cancels need not wait for its end.
        output = watched(partial(self._run, audio, _bounds(speakers)), progress)
        progress(1.0)
        return Diarization(
            _turns(output.speaker_diarization, audio.duration_s),
            _turns(output.exclusive_speaker_diarization, audio.duration_s),
        )

    def _run(self, audio: Audio, bounds: dict[str, int], progress: Progress) -> DiarizeOutput:
        import torch

        hook = _Hook(progress)
        file = {"waveform": torch.from_numpy(audio.read())[None], "sample_rate": SAMPLE_RATE_HZ}
        try:
            return self._pipeline(file, hook=hook, **bounds)
        except ValueError as error:
            # Its VBx clustering asks k-means for more speakers than there are pieces of speech (4.0.7); a recording as
            # short as that cannot hold the wanted number, so find those that are there.
            if "n_clusters" not in str(error):
                raise
            _log.warning("too little speech for %s: speakers are counted instead", bounds)
            return self._pipeline(file, hook=hook, max_speakers=max(bounds.values()))


class _Hook:
    """The pipeline's progress callback: one call for each batch of a stage, counted within the stage."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __call__(
        self,
        stage: str,
        artifact: object,  # noqa: ARG002 - the library's signature
        file: object = None,  # noqa: ARG002
        total: int | None = None,
        completed: int | None = None,
    ) -> None:
        if stage in _STAGES and total and completed is not None:
            start, length = _STAGES[stage]
            self._progress(start + length * min(1.0, completed / total))


def _bounds(speakers: SpeakerCount) -> dict[str, int]:
    low, high = speakers.minimum, speakers.maximum
    if any(count is not None and count < 1 for count in (speakers.exact, low, high)):
        raise InvalidInput("The number of speakers must be 1 or more.")
    if speakers.exact is not None:
        return {"num_speakers": speakers.exact}
    if low is not None and high is not None and low > high:
        raise InvalidInput(f"min_speakers ({low}) is larger than max_speakers ({high}).")
    return {name: count for name, count in (("min_speakers", low), ("max_speakers", high)) if count is not None}


def _turns(annotation: Annotation, duration_s: float) -> tuple[SpeakerTurn, ...]:
    """Sorted turns; the last analysis window is padded, so turns may pass the end and are cut there."""
    turns = (
        SpeakerTurn(max(0.0, float(turn.start)), min(duration_s, float(turn.end)), str(speaker))
        for turn, _, speaker in annotation.itertracks(yield_label=True)
    )
    return tuple(sorted((t for t in turns if t.end_s > t.start_s), key=lambda t: (t.start_s, t.end_s, t.speaker)))


def _load(path: Path, device: Device, threads: int) -> tuple[Pipeline, torch.device]:
    # Read when the package is imported and again at each use; it must be there before the first.
    os.environ["PYANNOTE_METRICS_ENABLED"] = "0"
    try:
        # Its import warns at length when torchcodec finds no FFmpeg; we hand over decoded samples and never need it.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
            from pyannote.audio import Pipeline
    except (ImportError, OSError) as error:  # OSError: a torchaudio built for another torch
        raise EngineUnavailable(
            f"pyannote.audio cannot be imported ({_line(error)}): pip install 'aperta[pyannote]'."
        ) from error
    if threads:
        torch.set_num_threads(threads)
    used = torch.device("cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu")
    try:
        with _offline():
            pipeline = Pipeline.from_pretrained(path)
        pipeline.legacy = False  # a configuration may ask for the output of pyannote 3, which has no exclusive turns
        share_trunk(pipeline)
        return pipeline.to(used), used
    except Exception as error:  # a damaged or foreign pipeline fails in a dozen libraries, each in its own way
        raise EngineUnavailable(
            f"The diarization pipeline in {path} cannot be loaded on {used}: {_line(error)}."
        ) from error


@contextmanager
def _offline() -> Iterator[None]:
    """Keep the hub library from the network: a configuration may name parts in other repositories.

    They load from the cache or not at all. The variable HF_HUB_OFFLINE is read only once, at import.
    """
    from huggingface_hub import constants

    before: Any = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _missing(model: str, token: SecretStr | str | None) -> str:
    if KNOWN_MODELS["community-1"].name != Path(model).name and KNOWN_MODELS["community-1"].repo != model:
        return (
            f"There is no complete pyannote pipeline {model!r} on this machine: give a directory with a config.yaml "
            "and the parts it names, or community-1 after `aperta models pull community-1`."
        )
    secret = token.get_secret_value() if isinstance(token, SecretStr) else token
    steps: Iterable[str] = (f"accept the conditions on {_LICENCE_PAGE}", *(() if secret else ("set HF_TOKEN",)))
    return (
        f"The pyannote pipeline community-1 is not on this machine: {', '.join(steps)} "
        "and run `aperta models pull community-1`."
    )


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
