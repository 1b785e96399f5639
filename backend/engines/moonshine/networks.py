"""Moonshine's three networks on ONNX Runtime: the encoder, and the decoder's first and its later steps.

The decoder's file holds both kinds of step as branches of one node. Each is made a graph of its own, which also gives
what the file keeps inside: where the decoder looks while it chooses a token.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backend.engines.ort_to_onnx import INT64, GraphInput, onnx_bytes
from backend.errors import EngineUnavailable

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

LAYERS, HEADS, HEAD_SIZE, WIDTH = 6, 8, 36, 288
FRAME_SAMPLES = 384
"""Samples per encoder frame; the decoder's mask is given in samples and read once per frame."""
ALIGNING_LAYERS = (3, 4)
"""Layers whose attention follows the sound best: against Whisper base's word starts, 0 and 5 err ten times as much."""

_ATTENTION = tuple(f"/model/decoder/layers.{layer}/encoder_attn/Softmax_output_0" for layer in ALIGNING_LAYERS)
_OWN = tuple(f"{layer}.decoder.{part}" for layer in range(LAYERS) for part in ("key", "value"))
_HEARD = tuple(f"{layer}.encoder.{part}" for layer in range(LAYERS) for part in ("key", "value"))
_INPUTS = (
    GraphInput("input_ids", ("batch", "tokens"), INT64),
    GraphInput("encoder_hidden_states", ("batch", "frames", WIDTH)),
    GraphInput("encoder_attention_mask", ("batch", "samples"), INT64),
)
_PAST = tuple(
    GraphInput(f"past_key_values.{name}", ("batch", HEADS, "past" if name in _OWN else "heard", HEAD_SIZE))
    for name in (*_OWN, *_HEARD)
)


@dataclass(frozen=True, slots=True)
class Step:
    """What the decoder says of the next token of each piece.

    Attributes:
        logits: (n_pieces, n_tokens).
        attention: (n_pieces, n_heads, n_frames) of the aligning layers' heads; padding has none.
    """

    logits: Floats
    attention: Floats


class Networks:
    """The loaded networks. Safe to call from several threads, each of which then keeps one core busy.

    Args:
        folder: holds encoder_model.ort and decoder_model_merged.ort.

    Raises:
        EngineUnavailable: a file is missing, is of another version, or does not load.
    """

    def __init__(self, folder: Path) -> None:
        self._encoder = _open(folder / "encoder_model.ort")
        decoder = folder / "decoder_model_merged.ort"
        first = ["logits", *_ATTENTION, *(f"present.{name}" for name in (*_OWN, *_HEARD))]
        later = ["logits", *_ATTENTION, *(f"present.{name}" for name in _OWN)]
        self._first = _open(decoder, _INPUTS, first, "else_branch")
        self._later = _open(decoder, (*_INPUTS, *_PAST), later, "then_branch")

    def encode(self, samples: Floats) -> Floats:
        """(n_frames, 288). One piece at a time: the encoder normalises over all it is given, padding too."""
        inputs = {"input_values": samples[None], "attention_mask": np.ones((1, len(samples)), np.int64)}
        hidden: Floats = self._encoder.run(None, inputs)[0][0]
        return hidden

    def decoding(self, encoded: Sequence[Floats]) -> Decoding:
        """A decoding of encoded pieces together, before its first step."""
        return Decoding(self._first, self._later, encoded)


class Decoding:
    """Pieces that are decoded together, token by token."""

    def __init__(self, first: InferenceSession, later: InferenceSession, encoded: Sequence[Floats]) -> None:
        self._first, self._later = first, later
        self._inputs = _padded(encoded)
        self._cache: dict[str, NDArray[Any]] = {}

    def step(self, tokens: Ints) -> Step:
        """Go on after these tokens, (n_pieces,), the last one of each piece."""
        session = self._later if self._cache else self._first
        names = [output.name for output in session.get_outputs()]
        inputs = {**self._inputs, **self._cache, "input_ids": tokens[:, None]}
        outputs = dict(zip(names, session.run(names, inputs), strict=True))
        for name, value in outputs.items():
            if name.startswith("present."):
                self._cache[name.replace("present", "past_key_values")] = value
        attention = np.concatenate([outputs[name][:, :, -1] for name in _ATTENTION], axis=1)
        return Step(outputs["logits"][:, -1], attention)


def _padded(encoded: Sequence[Floats]) -> dict[str, NDArray[Any]]:
    """Encoder frames of all pieces as one array, and the mask that tells frames from padding."""
    longest = max(len(hidden) for hidden in encoded)
    hidden = np.zeros((len(encoded), longest, WIDTH), np.float32)
    mask = np.zeros((len(encoded), longest * FRAME_SAMPLES), np.int64)
    for row, piece in enumerate(encoded):
        hidden[row, : len(piece)] = piece
        mask[row, : len(piece) * FRAME_SAMPLES] = 1
    return {"encoder_hidden_states": hidden, "encoder_attention_mask": mask}


def _open(
    path: Path, inputs: Sequence[GraphInput] = (), outputs: Sequence[str] = (), branch: str | None = None
) -> InferenceSession:
    """A session on one core: calls run side by side, which wastes less than splitting such small products."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # the arena keeps the peak of every shape it has seen
    providers = ["CPUExecutionProvider"]
    try:
        if not outputs:
            return onnxruntime.InferenceSession(str(path), options, providers=providers)
        with _unnamed_file(onnx_bytes(memoryview(path.read_bytes()), inputs, outputs, branch=branch)) as name:
            return onnxruntime.InferenceSession(name, options, providers=providers)
    except Exception as error:  # ONNX Runtime's own errors share no base class but Exception
        raise EngineUnavailable(
            f"The built-in Moonshine model {path.name} does not load ({error}). Install moonshine-voice==0.0.71 again."
        ) from error


@contextmanager
def _unnamed_file(data: bytes) -> Iterator[str]:
    """A name for bytes in memory: a session that is given bytes keeps them as long as it lives, one for a file none."""
    with os.fdopen(os.memfd_create("model"), "wb") as file:
        file.write(data)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"
