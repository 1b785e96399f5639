"""Rewrite a model in ONNX Runtime's own format (flatbuffer) as ONNX (protobuf), whole or in part."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from backend.errors import EngineUnavailable

if TYPE_CHECKING:
    pass

Table = Any  # a table of ONNX Runtime's generated flatbuffer reader, which has no types


ORT_IDENTIFIER = b"ORTM"  # at byte 4 of the flatbuffer


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
    raise EngineUnavailable(
        f"The diarization model holds an attribute of an unknown kind ({kind}). Use the pinned version."
    )


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
