"""Speech models with random weights in the real formats: they load and run as real ones do, and say nonsense.

Speed, shapes, times and errors need no trained weights, and a model hub is not needed to test an engine.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backend.engines.audio.samples import SAMPLE_RATE_HZ, Audio, MediaInfo

if TYPE_CHECKING:
    from ctranslate2.specs.model_spec import LayerSpec
    from pyannote.audio import Model

Floats = NDArray[np.float32]

N_LANGUAGES = 99
N_TIMESTAMPS = 1_501
N_POSITIONS, N_FRAMES = 448, 1_500
N_EMBEDDING = 256
PROMPT_LENGTH = 4  # start, language, task, no timestamps


@dataclass(frozen=True, slots=True)
class WhisperShape:
    """Sizes of a Whisper model. `n_words`: how many words a decoding has before it ends by itself."""

    width: int = 64
    heads: int = 2
    layers: int = 2
    n_words: int = 24
    n_plain_tokens: int = 1_000


TINY = WhisperShape(384, 6, 4, 80, 50_257)
BASE = WhisperShape(512, 8, 6, 80, 50_257)
SMALL = WhisperShape(768, 12, 12, 80, 50_257)
SMALLEST = WhisperShape()


def as_audio(samples: Floats) -> Audio:
    """(n_samples,) float32 at 16 kHz as the recording that engines read."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - Audio closes it
    file.write(samples.astype(np.float32).tobytes())
    file.flush()
    return Audio(file, len(samples), MediaInfo("wav", "pcm_f32le", SAMPLE_RATE_HZ, 1, len(samples) / SAMPLE_RATE_HZ))


def silence(duration_s: float) -> Floats:
    return np.zeros(round(duration_s * SAMPLE_RATE_HZ), dtype=np.float32)


def vowels(duration_s: float, pitch_hz: float = 120.0, *, seed: int = 0) -> Floats:
    """A voice singing random vowels: harmonics under moving formants, four syllables a second. Passes for speech."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    knots = np.arange(0.0, duration_s + 0.5, 0.25)
    first, second = (np.interp(t, knots, rng.uniform(*band, len(knots))) for band in ((300, 800), (900, 2200)))
    melody_hz = pitch_hz * (1 + 0.1 * np.interp(t, knots, rng.normal(size=len(knots))))
    phase = 2 * np.pi * np.cumsum(melody_hz) / SAMPLE_RATE_HZ
    voice = np.zeros_like(t)
    for k in range(1, int(4000 / pitch_hz)):
        loudness = sum(np.exp(-(((k * pitch_hz - formant) / 120) ** 2)) for formant in (first, second)) + 0.02
        voice += loudness * np.sin(k * phase) / np.sqrt(k)
    voice *= 0.55 - 0.45 * np.cos(2 * np.pi * 4 * t)
    return np.asarray(0.3 * voice / np.abs(voice).max(), dtype=np.float32)


def build_whisper(directory: Path, shape: WhisperShape = SMALLEST, *, multilingual: bool = True, seed: int = 0) -> Path:
    """Write a Whisper model that faster-whisper loads: model.bin, config.json, tokenizer.json …"""
    from ctranslate2.specs import whisper_spec

    directory.mkdir(parents=True, exist_ok=True)
    specials = _special_tokens()
    tokens = _save_tokenizer(directory, shape.n_plain_tokens, specials, multilingual)
    spec = whisper_spec.WhisperSpec(shape.layers, shape.heads, shape.layers, shape.heads)
    _fill(spec, shape, tokens, np.random.default_rng(seed))
    spec.register_vocabulary(tokens)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [tokens.index("<|endoftext|>")]
    first_language = shape.n_plain_tokens + 2
    spec.config.lang_ids = list(range(first_language, first_language + N_LANGUAGES))
    spec.config.alignment_heads = [[layer, 0] for layer in range(shape.layers)]
    spec.validate()
    spec.save(str(directory))
    return directory


def _special_tokens() -> list[str]:
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    languages = sorted(set(_LANGUAGE_CODES) - {"yue"}, key=lambda code: (code != "en", code))
    tasks = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    times = [f"{i * 0.02:.2f}" for i in range(N_TIMESTAMPS)]
    return [f"<|{name}|>" for name in ("endoftext", "startoftranscript", *languages, *tasks, *times)]


def _save_tokenizer(directory: Path, n_plain: int, specials: list[str], multilingual: bool) -> list[str]:
    """A byte-level BPE: 256 bytes, then invented words that decode to text but that no merge ever produces.

    The last plain token of a multilingual Whisper is the empty string; CTranslate2 tells the two kinds apart by it.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = letters + [f"Ġw{i}" for i in range(n_plain - len(letters))]
    plain[-1] = "" if multilingual else plain[-1]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(plain)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Timestamps are in the model's vocabulary but not in the tokenizer's, as in the published models.
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in specials[:-N_TIMESTAMPS]])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "preprocessor_config.json").write_text(json.dumps({"feature_size": 80, "n_fft": 400}))
    return plain + specials


def _fill(spec: LayerSpec, shape: WhisperShape, tokens: list[str], rng: np.random.Generator) -> None:
    """Give every tensor of the specification small random values of the right shape."""
    d = shape.width
    _dense(spec.encoder.conv1, (d, 80, 3), rng)
    _dense(spec.encoder.conv2, (d, d, 3), rng)
    spec.encoder.position_encodings.encodings = _noise((N_FRAMES, d), rng)
    embeddings, positions = _ending_embeddings(shape, tokens, rng)
    words = slice(256, shape.n_plain_tokens - 1)
    spec.decoder.embeddings.weight = embeddings
    spec.decoder.projection.weight = embeddings.copy()
    spec.decoder.projection.weight[words] = np.roll(embeddings[words], 1, axis=0)  # a word calls the next, not itself
    spec.decoder.position_encodings.encodings = positions
    for side in (spec.encoder, spec.decoder):
        _norm(side.layer_norm, d)
        for layer in side.layer:
            _attention(layer.self_attention, [3, 1], d, rng)
            _norm(layer.ffn.layer_norm, d)
            _dense(layer.ffn.linear_0, (4 * d, d), rng)
            _dense(layer.ffn.linear_1, (d, 4 * d), rng)
    for layer in spec.decoder.layer:
        _attention(layer.attention, [1, 2, 1], d, rng)


def _ending_embeddings(shape: WhisperShape, tokens: list[str], rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Token and position tables with one direction set apart for "end": untrained models never stop by themselves.

    Positions after the wanted length point into that direction, and the end token is the only one that has it.
    """
    embeddings, positions = _noise((len(tokens), shape.width), rng, 0.3), _noise((N_POSITIONS, shape.width), rng)
    embeddings[:256] = 0.0  # single bytes would decode to broken characters
    embeddings[shape.n_plain_tokens - 1 :] = 0.0  # no special tokens in the text
    embeddings[:, :2] = positions[:, :2] = 0.0
    ending = np.array([1.0, -1.0], dtype=np.float32)  # zero mean, so layer normalization leaves it alone
    embeddings[tokens.index("<|endoftext|>"), :2] = 30.0 * ending
    positions[PROMPT_LENGTH + shape.n_words :, :2] = 30.0 * ending
    return embeddings, positions


def _attention(spec: LayerSpec, widths: list[int], d: int, rng: np.random.Generator) -> None:
    _norm(spec.layer_norm, d)
    for linear, width in zip(spec.linear, widths, strict=True):
        _dense(linear, (width * d, d), rng)


def _dense(spec: LayerSpec, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    spec.weight, spec.bias = _noise(shape, rng, 0.02), np.zeros(shape[0], dtype=np.float32)


def _norm(spec: LayerSpec, d: int) -> None:
    spec.gamma, spec.beta = np.ones(d, dtype=np.float32), np.zeros(d, dtype=np.float32)


def _noise(shape: tuple[int, ...], rng: np.random.Generator, scale: float = 0.02) -> Floats:
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)


def build_pyannote(directory: Path, *, seed: int = 0) -> Path:
    """Write a pyannote 4 pipeline as community-1 is laid out: config.yaml, segmentation/, embedding/, plda/.

    The networks are pyannote's own, small ones; the clustering is community-1's VBx.
    """
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding import XVectorSincNet
    from pyannote.audio.models.segmentation import PyanNet

    torch.manual_seed(seed)
    segmentation = PyanNet(lstm={"hidden_size": 16, "num_layers": 1}, linear={"hidden_size": 16, "num_layers": 1})
    segmentation.specifications = Specifications(
        problem=Problem.MONO_LABEL_CLASSIFICATION,
        resolution=Resolution.FRAME,
        duration=10.0,
        classes=["speaker#1", "speaker#2", "speaker#3"],
        powerset_max_classes=2,
        permutation_invariant=True,
    )
    segmentation.build()
    _calm(segmentation)
    embedding = XVectorSincNet(dimension=N_EMBEDDING)
    embedding.specifications = Specifications(
        problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=5.0, classes=["somebody"]
    )
    _save_checkpoint(segmentation, directory / "segmentation")
    _save_checkpoint(embedding, directory / "embedding")
    _save_plda(directory / "plda", np.random.default_rng(seed))
    (directory / "config.yaml").write_text(_PIPELINE)
    return directory


def _calm(segmentation: Model) -> None:
    """Make speakers last: untrained, the network changes its mind at every frame, or never."""
    import torch

    units, first_overlap = segmentation.hparams.lstm["hidden_size"], 4
    with torch.no_grad():
        for name, bias in segmentation.lstm.named_parameters():
            if name.startswith("bias_ih"):
                bias[units : 2 * units] += 5.0  # the forget gates stay open, so the state moves slowly
        segmentation.classifier.bias.zero_()
        segmentation.classifier.weight[first_overlap:] *= 0.5


# A step of half a window instead of a tenth: five times less work, and the tests look at times, not at accuracy.
_PIPELINE = """\
dependencies:
  pyannote.audio: 4.0.0
pipeline:
  name: pyannote.audio.pipelines.SpeakerDiarization
  params:
    clustering: VBxClustering
    segmentation: $model/segmentation
    segmentation_step: 0.5
    segmentation_batch_size: 4
    embedding: $model/embedding
    embedding_batch_size: 4
    embedding_exclude_overlap: true
    plda: $model/plda
params:
  clustering: {threshold: 0.6, Fa: 0.07, Fb: 0.8}
  segmentation: {min_duration_off: 0.0}
"""


def _save_checkpoint(model: Model, directory: Path) -> None:
    import lightning
    import torch

    directory.mkdir(parents=True)
    checkpoint: dict[str, Any] = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        "pytorch-lightning_version": lightning.__version__,
    }
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, directory / "pytorch_model.bin")


def _save_plda(directory: Path, rng: np.random.Generator, n_in: int = N_EMBEDDING, n_out: int = 128) -> None:
    directory.mkdir(parents=True)
    lda = np.linalg.qr(rng.standard_normal((n_in, n_in)))[0][:, :n_out]
    np.savez(directory / "xvec_transform.npz", mean1=np.zeros(n_in), mean2=np.zeros(n_out), lda=lda)
    psi = np.sort(rng.uniform(0.1, 5.0, n_out))[::-1]
    np.savez(directory / "plda.npz", mu=np.zeros(n_out), tr=np.eye(n_out), psi=psi)
