"""Which speech models exist, and which are on this disk. Touches no network and imports no ML library.

Fetching a model is the matter of `fetching`, loading one that of the adapters.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.errors import EngineUnavailable, NotFound

Kind = Literal["whisper", "parakeet", "parakeet-int8", "pyannote", "embedded"]

WHISPER_FILES = ("model.bin", "config.json", "tokenizer.json")
WHISPER_VOCABULARIES = ("vocabulary.txt", "vocabulary.json")
PIPELINE_FILE = "config.yaml"
FILES: Mapping[Kind, Sequence[str]] = {
    "whisper": ("config.json", "tokenizer.json", *WHISPER_VOCABULARIES, "preprocessor_config.json", "model.bin"),
    "parakeet-int8": ("config.json", "vocab.txt", "decoder_joint-model.int8.onnx", "encoder-model.int8.onnx"),
    "parakeet": (
        "config.json",
        "vocab.txt",
        "decoder_joint-model.onnx",
        "encoder-model.onnx.data",
        "encoder-model.onnx",
    ),
    "pyannote": (
        "plda/plda.npz",
        "plda/xvec_transform.npz",
        "segmentation/pytorch_model.bin",
        "embedding/pytorch_model.bin",
        PIPELINE_FILE,
    ),
}
"""Every file that a model of a kind may have, the one that makes it complete last."""
TRANSCRIPTION_KINDS: tuple[Kind, ...] = ("whisper", "parakeet-int8", "parakeet")
EMBEDDED_PACKAGE = "moonshine-voice==0.0.71"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One entry of the catalogue. `size_mb` is the approximate download in 10^6 bytes.

    `revision` is the commit of the repository whose files are known by their checksums.
    """

    name: str
    kind: Kind
    repo: str
    size_mb: int
    licence: str = "MIT"
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A model and where it is. `path` is None if it is not on this disk; `size_bytes` is then the expected download."""

    name: str
    kind: Kind
    repo: str
    licence: str
    size_bytes: int
    path: Path | None


# Whisper from the weakest to the one to prefer; of one size the multilingual model is preferred.
_CATALOGUE = (
    KnownModel(
        "tiny.en",
        "whisper",
        "Systran/faster-whisper-tiny.en",
        78,
        revision="0d3d19a32d3338f10357c0889762bd8d64bbdeba",
    ),
    KnownModel("tiny", "whisper", "Systran/faster-whisper-tiny", 78),
    KnownModel("base.en", "whisper", "Systran/faster-whisper-base.en", 148),
    KnownModel(
        "base", "whisper", "Systran/faster-whisper-base", 148, revision="ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66"
    ),
    KnownModel("distil-small.en", "whisper", "Systran/faster-distil-whisper-small.en", 336),
    KnownModel("small.en", "whisper", "Systran/faster-whisper-small.en", 486),
    KnownModel("small", "whisper", "Systran/faster-whisper-small", 486),
    KnownModel("distil-medium.en", "whisper", "Systran/faster-distil-whisper-medium.en", 790),
    KnownModel("medium.en", "whisper", "Systran/faster-whisper-medium.en", 1_530),
    KnownModel("medium", "whisper", "Systran/faster-whisper-medium", 1_530),
    KnownModel("large-v1", "whisper", "Systran/faster-whisper-large-v1", 3_090),
    KnownModel("distil-large-v2", "whisper", "Systran/faster-distil-whisper-large-v2", 1_520),
    KnownModel("large-v2", "whisper", "Systran/faster-whisper-large-v2", 3_090),
    KnownModel("distil-large-v3", "whisper", "Systran/faster-distil-whisper-large-v3", 1_520),
    KnownModel("distil-large-v3.5", "whisper", "distil-whisper/distil-large-v3.5-ct2", 1_520),
    KnownModel("large-v3", "whisper", "Systran/faster-whisper-large-v3", 3_090),
    KnownModel("large-v3-turbo", "whisper", "mobiuslabsgmbh/faster-whisper-large-v3-turbo", 1_620),
    KnownModel("parakeet-v3", "parakeet-int8", "istupakov/parakeet-tdt-0.6b-v3-onnx", 671, "CC-BY-4.0"),
    KnownModel("parakeet-v3-full", "parakeet", "istupakov/parakeet-tdt-0.6b-v3-onnx", 2_550, "CC-BY-4.0"),
    KnownModel("community-1", "pyannote", "pyannote/speaker-diarization-community-1", 34, "CC-BY-4.0"),
    KnownModel("moonshine-tiny-en", "embedded", EMBEDDED_PACKAGE, 44),
    KnownModel("community-1-onnx", "embedded", EMBEDDED_PACKAGE, 9, "CC-BY-4.0"),
)
KNOWN_MODELS = {model.name: model for model in _CATALOGUE}

_ALIASES = {"turbo": "large-v3-turbo", "large": "large-v3"}
_ALIASES |= {model.repo: model.name for model in _CATALOGUE if model.kind in ("whisper", "pyannote")}

WHISPER_PREFERENCE = tuple(model.name for model in reversed(_CATALOGUE) if model.kind == "whisper")


def find_whisper(model: str, models_dir: Path | None = None) -> Path | None:
    """The directory of a complete CTranslate2 Whisper model, or None. No network.

    Args:
        model: a catalogue name ("small"), a hub repository ("owner/name") or a directory (with a "/" in it).
        models_dir: looked in first: `models_dir/<name>`, then as a hub cache; then the user's own hub cache.
    """
    return next((path for path in _places(model, models_dir) if _is_whisper(path)), None)


def find_pyannote(model: str = "community-1", models_dir: Path | None = None) -> Path | None:
    """The directory of a complete pyannote pipeline (config.yaml and the parts it names), or None. No network."""
    return next((path for path in _places(model, models_dir) if _is_pipeline(path)), None)


def find_embedded() -> Path | None:
    """The installed package that carries the embedded models, or None. Does not import it."""
    spec = importlib.util.find_spec("moonshine_voice")
    package = Path(spec.origin).parent if spec and spec.origin else None
    # Other versions of the wheel come without weights.
    return package if package and (package / "assets" / "tiny-en" / "encoder_model.ort").is_file() else None


def get_embedded() -> Path:
    """As `find_embedded`.

    Raises:
        EngineUnavailable: it is not installed.
    """
    package = find_embedded()
    if package is None:
        raise EngineUnavailable(
            "The built-in Moonshine model is not installed: run `pip install moonshine-voice==0.0.71` "
            "(Linux, glibc 2.34 or newer), or fetch a Whisper model with `aperta models pull small`."
        )
    return package


def missing_files(path: Path) -> list[str]:
    """What a directory lacks to be a Whisper model."""
    missing = [name for name in WHISPER_FILES if not (path / name).is_file()]
    if not any((path / name).is_file() for name in WHISPER_VOCABULARIES):
        missing.append(" or ".join(WHISPER_VOCABULARIES))
    return missing


def own_models(models_dir: Path | None) -> list[Path]:
    """Complete transcription models in `models_dir` that are not in the catalogue."""
    own = [path for path in _subdirectories(models_dir) if path.name not in KNOWN_MODELS]
    return [path for path in own if kind_of(path)]


def kind_of(path: Path) -> Kind | None:
    """What kind of transcription model a directory holds, if it holds a complete one."""
    return next((kind for kind in TRANSCRIPTION_KINDS if is_complete(kind, path)), None)


def files_bytes(kind: Kind, path: Path) -> int:
    """Size of the files that a model of this kind uses; other models may be in the same directory."""
    return sum((path / name).stat().st_size for name in FILES[kind] if (path / name).is_file())


def list_models(models_dir: Path | None = None) -> list[ModelStatus]:
    """List the catalogue with paths of models on disk, then other Whisper models in `models_dir`."""
    return [_status(known, find_known(known, models_dir)) for known in _CATALOGUE] + [
        ModelStatus(path.name, kind, "", "", files_bytes(kind, path), path)
        for path in own_models(models_dir)
        if (kind := kind_of(path))
    ]


def find_in_catalogue(name: str) -> KnownModel | None:
    """The catalogue's entry of a name, or of another name for it."""
    return KNOWN_MODELS.get(_ALIASES.get(name, name))


def get_known(name: str) -> KnownModel:
    """As `find_in_catalogue`.

    Raises:
        NotFound: no such name in the catalogue.
    """
    known = find_in_catalogue(name)
    if known is None:
        raise NotFound(f"There is no model {name!r} in the catalogue. Known: {', '.join(KNOWN_MODELS)}.")
    return known


def find_known(known: KnownModel, models_dir: Path | None = None) -> Path | None:
    """The directory of a complete model of the catalogue, or None. No network."""
    if known.kind == "embedded":
        return find_embedded()
    return next((path for path in _places(known.name, models_dir) if is_complete(known.kind, path)), None)


def place_for(known: KnownModel, models_dir: Path | None) -> Path:
    """Where a model is put that does not come through the hub's own library.

    That is `models_dir/<name>`, or the directory that the hub's library would use in the user's hub cache.
    """
    if models_dir:
        return models_dir / known.name
    return _repository(_hub_cache(), known.repo) / "snapshots" / (known.revision or "local")


def make_main(known: KnownModel) -> None:
    """Let other programs that use the hub cache find a model that was put there with `place_for`."""
    main = _repository(_hub_cache(), known.repo) / "refs" / "main"
    if known.revision and not main.exists():
        main.parent.mkdir(parents=True, exist_ok=True)
        main.write_text(known.revision)


def is_complete(kind: Kind, path: Path) -> bool:
    """Whether a directory holds every file that a model of its kind needs."""
    if kind == "pyannote":
        return _is_pipeline(path)
    return _is_whisper(path) if kind == "whisper" else all((path / name).is_file() for name in FILES[kind])


def _status(known: KnownModel, path: Path | None) -> ModelStatus:
    found_bytes = files_bytes(known.kind, path) if path and known.kind in FILES else known.size_mb * 1_000_000
    return ModelStatus(known.name, known.kind, known.repo, known.licence, found_bytes, path)


def _places(model: str, models_dir: Path | None) -> Iterator[Path]:
    """Every directory where a model could be, in the order of preference."""
    if "/" in model:
        yield Path(model).expanduser()
    name = _ALIASES.get(model, model)
    known = KNOWN_MODELS.get(name)
    repo = known.repo if known else model
    if models_dir:
        yield models_dir / name
        yield from _snapshots(models_dir, repo)
    yield from _snapshots(_hub_cache(), repo)


def _snapshots(cache: Path, repo: str) -> Iterator[Path]:
    """Checked-out revisions in a hub cache, `main` first, read from its documented layout."""
    root = _repository(cache, repo)
    main = root / "refs" / "main"
    if main.is_file():
        yield root / "snapshots" / main.read_text().strip()
    yield from _subdirectories(root / "snapshots")


def _repository(cache: Path, repo: str) -> Path:
    return cache / f"models--{repo.replace('/', '--')}"


def _hub_cache() -> Path:
    """The user's hub cache, found by the hub library's own variables."""
    env = os.environ
    home = env.get("HF_HOME") or str(Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub").expanduser()


def _is_whisper(path: Path) -> bool:
    # Without tokenizer.json the engine would fetch one from the hub in the middle of a request.
    return not missing_files(path)


def _is_pipeline(path: Path) -> bool:
    config = path / PIPELINE_FILE
    if not config.is_file():
        return False
    parts = re.findall(r"\$model/([\w.-]+)", config.read_text(encoding="utf-8"))
    return all(size_bytes(path / part) for part in parts)


def _subdirectories(path: Path | None) -> list[Path]:
    if path is None or not path.is_dir():
        return []
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def size_bytes(path: Path) -> int:
    """Bytes of all files of a directory."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
