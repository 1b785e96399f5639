"""A Parakeet with random weights in the layout of the published files: it loads and runs as the real one does, and says
nonsense. The graphs are written as ONNX by hand: a few operators need no library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WIDTH, STATE, N_MELS, SUBSAMPLING = 16, 8, 128, 8
DURATIONS = 5
FLOAT, INT32, INT64 = 1, 6, 7
TYPES = {np.dtype(np.float32): FLOAT, np.dtype(np.int32): INT32, np.dtype(np.int64): INT64}
WORDS = [f"▁w{number}" for number in range(24)] + [f"x{number}" for number in range(12)] + [".", ",", "▁"]


def build_parakeet(directory: Path, *, int8: bool = True, seed: int = 0) -> Path:
    """Write config.json, vocab.txt, encoder-model and decoder_joint-model; int8 files differ in their names only."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    suffix = ".int8" if int8 else ""
    tokens = [*WORDS, "<blk>"]
    config = {"model_type": "nemo-conformer-tdt", "features_size": N_MELS, "subsampling_factor": SUBSAMPLING}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "vocab.txt").write_text("".join(f"{token} {number}\n" for number, token in enumerate(tokens)))
    (directory / f"encoder-model{suffix}.onnx").write_bytes(_encoder(rng))
    (directory / f"decoder_joint-model{suffix}.onnx").write_bytes(_decoder_joint(rng, len(tokens)))
    if not int8:
        (directory / "encoder-model.onnx.data").write_bytes(b"")
    return directory


def _encoder(rng: np.random.Generator) -> bytes:
    """A convolution that makes one frame of eight."""
    constants = {
        "weights": _noise(rng, WIDTH, N_MELS, SUBSAMPLING),
        "one": np.array(1, np.int64),
        "eight": np.array(SUBSAMPLING, np.int64),
    }
    nodes = [
        _node("Conv", ["audio_signal", "weights"], "outputs", strides=[SUBSAMPLING], pads=[0, SUBSAMPLING - 1]),
        _node("Sub", ["length", "one"], "before"),
        _node("Div", ["before", "eight"], "frames"),
        _node("Add", ["frames", "one"], "encoded_lengths"),
    ]
    inputs = [("audio_signal", FLOAT, ["batch", N_MELS, "time"]), ("length", INT64, ["batch"])]
    outputs = [("outputs", FLOAT, ["batch", WIDTH, "frames"]), ("encoded_lengths", INT64, ["batch"])]
    return _model(nodes, constants, inputs, outputs)


def _decoder_joint(rng: np.random.Generator, n_tokens: int) -> bytes:
    """Logits of the frame and the previous token; blanks and steps of several frames are likely, as in speech."""
    bias = np.zeros((1, n_tokens + DURATIONS), np.float32)
    bias[0, n_tokens - 1] = 1.5
    bias[0, n_tokens + 2 :] = 2.0
    constants = {
        "joint": _noise(rng, WIDTH, n_tokens + DURATIONS),
        "previous": _noise(rng, n_tokens, n_tokens + DURATIONS),
        "bias": bias,
        "flat": np.array([1, WIDTH], np.int64),
        "shape": np.array([1, 1, 1, n_tokens + DURATIONS], np.int64),
        "row": np.array([1, n_tokens + DURATIONS], np.int64),
    }
    nodes = [
        _node("Reshape", ["encoder_outputs", "flat"], "frame"),
        _node("MatMul", ["frame", "joint"], "heard"),
        _node("Gather", ["previous", "targets"], "said_before"),
        _node("Reshape", ["said_before", "row"], "said"),
        _node("Add", ["heard", "said"], "sum"),
        _node("Add", ["sum", "bias"], "logits"),
        _node("Reshape", ["logits", "shape"], "outputs"),
        _node("Identity", ["input_states_1"], "output_states_1"),
        _node("Identity", ["input_states_2"], "output_states_2"),
        _node("Identity", ["target_length"], "prednet_lengths"),
    ]
    states = [(f"{side}_states_{number}", FLOAT, [2, 1, STATE]) for side in ("input", "output") for number in (1, 2)]
    inputs = [
        ("encoder_outputs", FLOAT, [1, WIDTH, 1]),
        ("targets", INT32, [1, 1]),
        ("target_length", INT32, [1]),
        *states[:2],
    ]
    outputs = [("outputs", FLOAT, [1, 1, 1, n_tokens + DURATIONS]), ("prednet_lengths", INT32, [1]), *states[2:]]
    return _model(nodes, constants, inputs, outputs)


def _noise(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return (rng.standard_normal(shape) * 0.3).astype(np.float32)


# The wire format of protocol buffers, with the field numbers of onnx.proto3.


def _model(
    nodes: Sequence[bytes],
    constants: dict[str, NDArray],
    inputs: Sequence[tuple[str, int, Sequence[int | str]]],
    outputs: Sequence[tuple[str, int, Sequence[int | str]]],
) -> bytes:
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"graph")
    graph += b"".join(_field(5, _tensor(name, value)) for name, value in constants.items())
    graph += b"".join(_field(11, _value(*value)) for value in inputs)
    graph += b"".join(_field(12, _value(*value)) for value in outputs)
    return _number(1, 8) + _field(7, graph) + _field(8, _number(2, 17))


def _node(operator: str, inputs: Sequence[str], output: str, **attributes: Sequence[int]) -> bytes:
    node = b"".join(_field(1, name.encode()) for name in inputs) + _field(2, output.encode())
    node += _field(4, operator.encode())
    for name, values in attributes.items():
        numbers = b"".join(_number(8, value) for value in values)
        node += _field(5, _field(1, name.encode()) + numbers + _number(20, 7))
    return node


def _tensor(name: str, value: NDArray) -> bytes:
    dims = b"".join(_number(1, size) for size in value.shape)
    return dims + _number(2, TYPES[value.dtype]) + _field(8, name.encode()) + _field(9, value.tobytes())


def _value(name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    sizes = [_number(1, size) if isinstance(size, int) else _field(2, size.encode()) for size in shape]
    typed = _number(1, kind) + _field(2, b"".join(_field(1, size) for size in sizes))
    return _field(1, name.encode()) + _field(2, _field(1, typed))


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])
