"""File names that clients send: made safe to store, guessed types, Content-Disposition. Pure."""

from __future__ import annotations

import mimetypes
import re
import unicodedata
from pathlib import PurePosixPath
from urllib.parse import quote

from backend.domain.text import is_hidden

MAX_STEM_BYTES = 200


MAX_EXTENSION_BYTES = 32
"""Together with `_metadata.json` or a uniqueness suffix a name stays below the 255 bytes of common file systems."""


def safe_filename(name: str) -> str:
    """Return a name that is safe as the last component of a path or key. Idempotent and never empty.

    Args:
        name: as the client sent it: it may hold paths or control characters and have any length.

    Returns:
        NFC, at most 232 bytes of UTF-8, extension kept; "recording" when nothing is left.
    """
    last = re.split(r"[/\\]", name)[-1]
    printable = unicodedata.normalize("NFC", "".join(c for c in last if not is_hidden(c)))
    stem, extension = _split_extension(printable.strip().lstrip(". ").strip())
    return (_cut(stem, MAX_STEM_BYTES) or "recording") + extension


def guess_media_type(filename: str) -> str:
    """Return the audio or video type a name suggests, else one that nothing opens: never a page or a program."""
    guessed = mimetypes.guess_type(filename)[0] or ""
    return guessed if guessed.startswith(("audio/", "video/")) else "application/octet-stream"


def attachment(filename: str) -> str:
    """Return a Content-Disposition value (RFC 6266) that every client reads and none can be injected through."""
    name = safe_filename(filename)
    plain = re.sub(r'[^ -~]|["\\%]', "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _split_extension(name: str) -> tuple[str, str]:
    extension = PurePosixPath(name).suffix
    if len(extension.encode()) > MAX_EXTENSION_BYTES or len(extension) < 2:
        return name, ""
    return name.removesuffix(extension), extension


def _cut(text: str, limit_bytes: int) -> str:
    return text.encode()[:limit_bytes].decode(errors="ignore").rstrip()
