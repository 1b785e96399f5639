"""The key that a server makes for itself at its first start, where API_KEYS is not set."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from tempfile import mkstemp

from filelock import FileLock

from backend.domain.access.keys import read_keys
from backend.errors import InvalidInput

NAME = "admin"
SECRET_BYTES = 24


def first_key(path: Path) -> str:
    """The key in a file, as API_KEYS has it; made and printed if there is no such file yet.

    Args:
        path: in a folder that outlives the process. Only this user may read the file.

    Raises:
        InvalidInput: the file holds no key.
        OSError: it cannot be read or written.
    """
    with FileLock(f"{path}.lock"):  # of two processes that start together, one makes the key
        if not path.exists():
            _save(path, key := f"{NAME}:{secrets.token_hex(SECRET_BYTES)}")
            _show(path, key)
        key = path.read_text(encoding="utf-8").strip()
    try:
        read_keys(key)
    except ValueError as error:
        raise InvalidInput(f"{path} holds no key: {error}. Delete it to have a new one made.") from error
    return key


def _save(path: Path, key: str) -> None:
    """Complete or not at all, also when the power fails."""
    # Other users cannot read what mkstemp makes.
    handle, written = mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f"{key}\n")
        file.flush()
        os.fsync(handle)
    Path(written).replace(path)


def _show(path: Path, key: str) -> None:
    name, _, secret = key.partition(":")
    print(
        f"Aperta made a key, because API_KEYS is not set. It is shown this once and kept in {path}.\n"
        f"  name:   {name}\n"
        f"  secret: {secret}",
        flush=True,
    )
