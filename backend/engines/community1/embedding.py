"""The embedding network: how a voice sounds, as a vector of 256 numbers.

Its trunk runs once over the recording, on chunks of 10 s and only where it is asked; the frames are then pooled for
every look, where pyannote runs the trunk once per window and local speaker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from backend.engines.audio.samples import SAMPLE_RATE_HZ, Audio
from backend.engines.community1.masks import Look
from backend.engines.community1.model_files import EMBEDDING, PROJECTION, find_model, open_session
from backend.engines.community1.windows import TRUNK_FRAMES, TRUNK_STEP, WINDOW, Floats, read_mended

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SILENCE_DEPTH = 11.5
"""A frame this far below the loudest of its chunk is silence: 50 dB, as the natural logarithm of power."""

L = TypeVar("L", bound=Look)


class VoiceNetwork:
    """The loaded network. May be shared by threads.

    Raises:
        EngineUnavailable: it is missing or is not the expected one.
    """

    def __init__(self, models_dir: Path | None, *, threads: int) -> None:
        embedding = find_model(EMBEDDING, models_dir)
        self.trunk = open_session(EMBEDDING, embedding, threads=threads)
        self._projection, self._bias = open_session(PROJECTION, embedding, threads=1).run(None, {})
        self._fbank = _fbank_function()

    def listen(self, audio: Audio) -> Listener:
        """One recording's voices. Go through it in time order: only the last 20 s are kept."""
        return Listener(self, _Trunk(audio, self.trunk, self._fbank))

    def project(self, pooled: Floats) -> Floats:
        """(256,) embedding, not normalised, of (5120,) pooled frames."""
        embedding: Floats = self._projection @ pooled + self._bias
        return embedding

    def normalised(self, embeddings: list[Floats]) -> Floats:
        """(n, 256) rows of length 1."""
        stacked = np.array(embeddings, dtype=np.float32).reshape(len(embeddings), len(self._bias))
        stacked /= np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-12)
        return stacked


class Listener:
    """Embeddings of looks at one recording."""

    def __init__(self, network: VoiceNetwork, trunk: _Trunk) -> None:
        self._network = network
        self._trunk = trunk

    def embed(self, start: int, looks: Iterable[L]) -> Iterator[tuple[L, Floats]]:
        """Each look at the window that starts at this sample, with its (256,) embedding; those without frames not."""
        for look in looks:
            pooled = pool(self._trunk.frames(start), look.mask)
            if pooled is not None:
                yield look, self._network.project(pooled)


class _Trunk:
    """Frames of the embedding network at any place of a recording; keeps the last two chunks of 10 s."""

    def __init__(self, audio: Audio, session: InferenceSession, fbank: Callable[[Floats], Floats]) -> None:
        self._audio, self._session, self._fbank = audio, session, fbank
        self._chunks: dict[int, Floats] = {}

    def frames(self, start: int) -> Floats:
        """(125, 2560) frames of the window that starts at this sample; fewer at the end of the recording."""
        first = round(start / TRUNK_STEP)
        chunk, offset = divmod(first, TRUNK_FRAMES)
        parts = [self._chunk(chunk)[offset:]]
        if offset:
            parts.append(self._chunk(chunk + 1)[:offset])
        return np.concatenate(parts)

    def _chunk(self, number: int) -> Floats:
        if number not in self._chunks:
            if len(self._chunks) > 1:
                del self._chunks[min(self._chunks)]
            self._chunks[number] = self._compute(number)
        return self._chunks[number]

    def _compute(self, number: int) -> Floats:
        n_samples = min(WINDOW, self._audio.n_samples - number * WINDOW)
        if n_samples <= 0:
            return np.zeros((0, 2560), dtype=np.float32)
        n_trunk = -(-n_samples // TRUNK_STEP)
        # 240 samples more than the hop: the last 25 ms frame of the chunk reaches beyond it.
        features = self._fbank(read_mended(self._audio, number * WINDOW, n_trunk * TRUNK_STEP + 240))
        features -= usual_sound(features[: max(1, n_samples // 160)])
        output: Floats = self._session.run(None, {"fbank": features[None]})[0]
        return np.ascontiguousarray(output[0].T)


def usual_sound(features: Floats) -> Floats:
    """(80,) what the features of a chunk have in common: their mean over (n, 80), without the frames of silence.

    Zeros, a constant, or the dither of a muted microphone lie far below any room that a microphone hears. Counted in,
    they would shift the mean, and a voice beside them would sound like another one.
    """
    level = features.mean(axis=1)
    usual: Floats = features[level >= level.max() - SILENCE_DEPTH].mean(axis=0)
    return usual


def pool(frames: Floats, mask: Floats) -> Floats | None:
    """(5120,) weighted mean and deviation over (n, 2560) frames, as pyannote's StatsPool; None if no weight."""
    weights = mask[: len(frames)]
    total = float(weights.sum())
    if total < 1e-3:
        return None
    frames = frames[: len(weights)]
    mean = weights @ frames / total
    variance = np.maximum(weights @ (frames * frames) / total - mean * mean, 0)
    unbiased = total / max(total - float(weights @ weights) / total, 1e-8)
    pooled: Floats = np.concatenate([mean, np.sqrt(variance * min(unbiased, 1e4))])
    return pooled


def _fbank_function() -> Callable[[Floats], Floats]:
    """Features as WeSpeaker trains on: 80 mel bins, 25 ms every 10 ms, Hamming, no dither, 16-bit scale."""
    import kaldi_native_fbank

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hamming"
    options.mel_opts.num_bins = 80
    options.use_energy = False

    def fbank(samples: Floats) -> Floats:
        computer = kaldi_native_fbank.OnlineFbank(options)
        computer.accept_waveform(SAMPLE_RATE_HZ, samples * 32768)
        computer.input_finished()
        return np.array([computer.get_frame(i) for i in range(computer.num_frames_ready)], dtype=np.float32)

    return fbank
