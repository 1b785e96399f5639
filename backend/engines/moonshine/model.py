"""Moonshine's encoder and decoder on ONNX Runtime: pieces of speech to text, several at a time.

The architecture is that of Jeffries et al., "Moonshine: Speech Recognition for Live Transcription and Voice Commands"
(2024, arXiv:2410.15608). The files are read from the installed moonshine-voice wheel; its own loop decodes one piece at
a time on one core, which costs more than twice as much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.sentences import text_without_loops
from backend.engines.audio.samples import SAMPLE_RATE_HZ
from backend.engines.catalogue import get_embedded
from backend.errors import EngineUnavailable

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Floats = NDArray[np.float32]

START, END = 1, 2
LAYERS, HEADS, HEAD_SIZE = 6, 8, 36
FRAME_SAMPLES = 384
"""Samples per encoder frame; the decoder's mask is given in samples and read once per frame."""
TOKENS_PER_S = 8.0
"""Where decoding gives up: fast speech has 5 to 6 tokens a second."""
SPACE = "▁"


class MoonshineModel:
    """Moonshine tiny-en. Safe to call from several threads, each of which then keeps one core busy.

    Raises:
        EngineUnavailable: the wheel is missing, is of another version, or does not load.
    """

    def __init__(self) -> None:
        folder = get_embedded() / "assets" / "tiny-en"
        self._encoder = _open(folder / "encoder_model.ort")
        self._decoder = _open(folder / "decoder_model_merged.ort")
        self._outputs = [output.name for output in self._decoder.get_outputs()]
        self._tokens = read_tokens((folder / "tokenizer.bin").read_bytes())

    def transcribe(self, pieces: Sequence[Floats], check: Callable[[], None] = lambda: None) -> list[str]:
        """Text of each piece.

        Args:
            pieces: (n_samples,) float32, mono, 16 kHz, [-1, 1] each, up to about 30 s; of similar length, because all
                are decoded as long as the longest.
            check: called for every piece and every token; what it raises ends the work.
        """
        encoded = [self._encode(piece, check) for piece in pieces]
        limits = np.array([math.ceil(len(piece) / SAMPLE_RATE_HZ * TOKENS_PER_S) + 2 for piece in pieces])
        decoded = self._decode(encoded, limits, check)
        return [
            self._text(tokens, len(piece) / SAMPLE_RATE_HZ, ended=len(tokens) < limit)
            for tokens, piece, limit in zip(decoded, pieces, limits, strict=True)
        ]

    def _encode(self, samples: Floats, check: Callable[[], None]) -> Floats:
        """(n_frames, 288). One piece at a time: the encoder normalises over all it is given, padding too."""
        check()
        inputs = {"input_values": samples[None], "attention_mask": np.ones((1, len(samples)), np.int64)}
        hidden: Floats = self._encoder.run(None, inputs)[0][0]
        return hidden

    def _decode(
        self, encoded: Sequence[Floats], limits: NDArray[np.int64], check: Callable[[], None]
    ) -> list[list[int]]:
        """Greedy: the likeliest token each time, until every piece has ended or has as many tokens as its limit."""
        fixed = _padded(encoded)
        cache = _empty_cache(len(encoded))
        tokens = np.full((len(encoded), 1), START, dtype=np.int64)
        texts: list[list[int]] = [[] for _ in encoded]
        running = np.ones(len(encoded), dtype=bool)
        for step in range(int(limits.max())):
            check()
            inputs = {**fixed, **cache, "input_ids": tokens, "use_cache_branch": np.array([step > 0])}
            outputs = dict(zip(self._outputs, self._decoder.run(None, inputs), strict=True))
            chosen = outputs["logits"][:, -1].argmax(axis=-1)
            running &= (chosen != END) & (step < limits)
            if not running.any():
                break
            for row in np.flatnonzero(running):
                texts[row].append(int(chosen[row]))
            tokens = chosen[:, None]
            cache |= _new_cache(outputs, with_encoder=step == 0)
        return texts

    def _text(self, tokens: Sequence[int], duration_s: float, *, ended: bool) -> str:
        joined = b"".join(self._tokens[token] for token in tokens)
        text = joined.decode("utf-8", "replace").replace(SPACE, " ").strip()
        return text_without_loops(text, duration_s, ended=ended)


def read_tokens(data: bytes) -> list[bytes]:
    """The vocabulary file: the length in one byte (from 128 on two), then the token's bytes. Markup is emptied."""
    tokens, position = [], 0
    while position < len(data):
        length, position = data[position], position + 1
        if length >= 128:
            length, position = data[position] * 128 + length - 128, position + 1
        token, position = data[position : position + length], position + length
        tokens.append(b"" if len(token) > 2 and token[:1] == b"<" and token[-1:] == b">" else token)
    return tokens


def _open(path: Path) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # One core per call: calls run side by side, which wastes less than splitting such small products.
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # the arena keeps the peak of every shape it has seen
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own errors share no base class but Exception
        raise EngineUnavailable(
            f"The built-in Moonshine model {path.name} does not load ({error}). Install moonshine-voice==0.0.71 again."
        ) from error


def _padded(encoded: Sequence[Floats]) -> dict[str, NDArray[Any]]:
    """Encoder frames of all pieces as one array, and the mask that tells frames from padding."""
    longest = max(len(hidden) for hidden in encoded)
    hidden = np.zeros((len(encoded), longest, encoded[0].shape[1]), np.float32)
    mask = np.zeros((len(encoded), longest * FRAME_SAMPLES), np.int64)
    for row, piece in enumerate(encoded):
        hidden[row, : len(piece)] = piece
        mask[row, : len(piece) * FRAME_SAMPLES] = 1
    return {"encoder_hidden_states": hidden, "encoder_attention_mask": mask}


def _empty_cache(n_pieces: int) -> dict[str, NDArray[Any]]:
    return {
        f"past_key_values.{layer}.{side}.{part}": np.zeros(
            (n_pieces, HEADS, 0 if side == "decoder" else 1, HEAD_SIZE), np.float32
        )
        for layer in range(LAYERS)
        for side in ("decoder", "encoder")
        for part in ("key", "value")
    }


def _new_cache(outputs: dict[str, NDArray[Any]], *, with_encoder: bool) -> dict[str, NDArray[Any]]:
    """What the next step needs of this one; the encoder's part is only made by the first."""
    return {
        name.replace("present", "past_key_values"): value
        for name, value in outputs.items()
        if name.startswith("present") and (with_encoder or ".decoder." in name)
    }
