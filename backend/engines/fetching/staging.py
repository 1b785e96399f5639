"""The files of a model on their way into its directory: a file gets its name once it is whole and its checksum fits.

What has arrived waits in a hidden folder beside the directory, so that an interrupted pull can go on.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock

from backend.errors import EngineUnavailable

CHUNK_BYTES = 1024 * 1024

Advance = Callable[[int], None]
"""Told how many more bytes were written."""

CHECKSUMS: Mapping[str, Mapping[str, str]] = {
    "base": {
        "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
        "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
        "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
    },
    "tiny.en": {
        "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
        "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
        "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        "vocabulary.txt": "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
    },
}
"""SHA-256 of the files in the model's repository, by the model's name in the catalogue."""


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """The folder in which the files of `target` wait; removed if the block ends well.

    A second process waits until the first is done.
    """
    staging = target.parent / f".{target.name}.pull"
    staging.mkdir(parents=True, exist_ok=True)
    with FileLock(staging / "lock"):
        staging.mkdir(exist_ok=True)  # the first may have removed it
        yield staging
        shutil.rmtree(staging, ignore_errors=True)


def write(source: Iterable[bytes], part: Path, advance: Advance = lambda _: None, *, append: bool = False) -> None:
    """Write chunks to a file that has no name of its own yet."""
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab" if append else "wb") as file:
        for chunk in source:
            file.write(chunk)
            advance(len(chunk))
        file.flush()
        os.fsync(file.fileno())


def settle(part: Path, target: Path, name: str, sha256: str | None) -> None:
    """Give a finished file its name in the model's directory.

    Raises:
        EngineUnavailable: it is not the file with this checksum; it is deleted.
    """
    found = hash_of(part) if sha256 else None
    if found != sha256:
        part.unlink()
        raise EngineUnavailable(
            f"The file {name} that arrived is not the one that belongs to {target.name}: its SHA-256 is {found}, "
            f"and it should be {sha256}. Nothing was kept of it; take it from elsewhere."
        )
    place = target / name
    place.parent.mkdir(parents=True, exist_ok=True)
    part.replace(place)


def hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def chunks(file: IO[bytes]) -> Iterator[bytes]:
    """What is left of an open file."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
