"""Rewrite a model in ONNX Runtime's own format (flatbuffer) as ONNX (protobuf), whole or in part."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from backend.errors import EngineUnavailable

Table = Any  # a table of ONNX Runtime's generated flatbuffer reader, which has no types


ORT_IDENTIFIER = b"ORTM"  # at byte 4 of the flatbuffer

FLOAT32, INT64 = 1, 7  # TensorProto.DataType


@dataclass(frozen=True, slots=True)
class GraphInput:
    """An input of the graph; a name inside the shape is a free dimension."""

    name: str
    shape: tuple[str | int, ...]
    element_type: int = FLOAT32


def onnx_bytes(
    data: memoryview, inputs: Sequence[GraphInput], outputs: Sequence[str], *, branch: str | None = None
) -> bytes:
    """Rewrite an ORT-format model as an ONNX one, cut to what `outputs` need.

    Args:
        data: the flatbuffer.
        outputs: names of any float32 tensors of the graph, or of the branch.
        branch: "then_branch" or "else_branch": this branch of the `If` node at the top takes the node's place.

    Raises:
        EngineUnavailable: the model has no such tensor, or something this rewriting does not know.
    """
    from onnxruntime.tools.ort_format_model import types  # noqa: F401  (puts the generated reader on sys.path)
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import InferenceSession

    model = InferenceSession.GetRootAs(data, 0).Model()
    nodes, initializers = _unfolded(model.Graph(), branch)
    nodes = _sorted(nodes, [name.encode() for name in outputs])
    read = {name for node in nodes for name in _reads(node)} | {name.encode() for name in outputs}
    parts = _body(nodes, [tensor for tensor in initializers if tensor.Name() in read], outputs)
    graph = parts + b"".join(_message(11, _value(port.name, port)) for port in inputs)
    return _int(1, model.IrVersion()) + _message(7, graph) + _opsets(model, {node.Domain() or b"" for node in nodes})


def _unfolded(graph: Table, branch: str | None) -> tuple[list[Table], list[Table]]:
    """Nodes and initializers of the graph; with `branch`, those of the branch instead of the `If` node."""
    nodes, initializers = _all(graph, "Nodes"), _all(graph, "Initializers")
    if branch is None:
        return nodes, initializers
    bodies = [
        attribute.G()
        for node in nodes
        if node.OpType() == b"If"
        for attribute in _all(node, "Attributes")
        if attribute.Name() == branch.encode()
    ]
    nodes = [node for node in nodes if node.OpType() != b"If"]
    for body in bodies:
        nodes, initializers = nodes + _all(body, "Nodes"), initializers + _all(body, "Initializers")
    return nodes, initializers


def _sorted(nodes: Sequence[Table], outputs: Sequence[bytes]) -> list[Table]:
    """The nodes that `outputs` depend on, each after those it depends on: they are stored in another order."""
    makers = {name: number for number, node in enumerate(nodes) for name in _all(node, "Outputs") if name}
    order: list[int] = []
    seen: set[int] = set()

    def needs(names: Sequence[bytes]) -> Iterator[int]:
        return (makers[name] for name in names if name in makers)

    waiting: list[tuple[int | None, Iterator[int]]] = [(None, needs(outputs))]
    while waiting:
        number, others = waiting[-1]
        other = next((found for found in others if found not in seen), None)
        if other is not None:
            seen.add(other)
            waiting.append((other, needs(_reads(nodes[other]))))
            continue
        waiting.pop()
        if number is not None:
            order.append(number)
    return [nodes[number] for number in order]


def _reads(node: Table) -> list[bytes]:
    return [*_all(node, "Inputs"), *_all(node, "ImplicitInputs")]


def _opsets(model: Table, domains: set[bytes]) -> bytes:
    opsets = [(opset.Domain() or b"", opset.Version()) for opset in _all(model, "OpsetImport")]
    kept = [(domain, version) for domain, version in opsets if domain in domains or not domain]
    return b"".join(_message(8, _message(1, domain) + _int(2, version)) for domain, version in kept)


def _graph(graph: Table) -> bytes:
    """A graph inside a node, as it is."""
    return _body(_all(graph, "Nodes"), _all(graph, "Initializers"), [name.decode() for name in _all(graph, "Outputs")])


def _body(nodes: Sequence[Table], initializers: Sequence[Table], outputs: Sequence[str]) -> bytes:
    parts = [_message(1, _node(node)) for node in nodes] + [_message(2, b"graph")]
    parts += [_message(5, _tensor(tensor)) for tensor in initializers]
    return b"".join(parts + [_message(12, _value(name, None)) for name in outputs])


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
        return head + _message(6, _graph(attribute.G()))
    if kind == 6:
        return head + b"".join(_float(7, value) for value in _all(attribute, "Floats"))
    if kind == 7:
        return head + b"".join(_int(8, value) for value in _all(attribute, "Ints"))
    raise EngineUnavailable(f"A model holds an attribute of an unknown kind ({kind}). Use the pinned version.")


def _tensor(tensor: Table) -> bytes:
    raw = tensor.RawDataAsNumpy().tobytes() if tensor.RawDataLength() else b""
    dims = b"".join(_int(1, size) for size in _all(tensor, "Dims"))
    return dims + _int(2, tensor.DataType()) + _message(8, tensor.Name() or b"") + _message(9, raw)


def _value(name: str, port: GraphInput | None) -> bytes:
    """ValueInfoProto of an input, or of an output: float32, of a shape that ONNX Runtime infers."""
    tensor = _int(1, port.element_type if port else FLOAT32)
    if port is not None:
        sizes = [_message(2, size.encode()) if isinstance(size, str) else _int(1, size) for size in port.shape]
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
