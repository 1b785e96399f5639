"""The grammar of object keys and the guard against path traversal. Pure: touches no file and no network.

    audio       conv_X/2026/01/15/meeting.wav
    metadata    conv_X/2026/01/15/meeting_metadata.json
    transcript  conv_X/2026/01/15/conv_X_transcript.txt

Original file names are data: they enter a path only through `safe_filename`.
"""

from __future__ import annotations

import mimetypes
import re
import unicodedata
from datetime import UTC, datetime
from pathlib import PurePosixPath
from urllib.parse import quote

from backend.domain.text import is_hidden
from backend.errors import InvalidInput
from backend.services.storage.base import Kind

PREFIXES: dict[Kind, str] = {"audio": "audio/", "transcript": "transcripts/", "metadata": "metadata/"}
"""Put before the key in a bucket; a local folder needs no such split."""

INCOMING = "incoming/"
"""In a bucket, apart from what Aperta keeps, what clients send straight there: nobody's recording yet."""

MAX_STEM_BYTES = 200
MAX_EXTENSION_BYTES = 32
"""Together with `_metadata.json` or a uniqueness suffix a name stays below the 255 bytes of common file systems."""

_CONVERSATION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY = re.compile(r"([A-Za-z0-9_-]{1,64})/\d{4}/\d{2}/\d{2}/([^/\0]+)")
_METADATA = re.compile(r"_metadata(-\w+)*\.json$")


def safe_filename(name: str) -> str:
    """Return a name that is safe as the last component of a path or key. Idempotent and never empty.

    Args:
        name: whatever the client sent: paths, control characters, any length.

    Returns:
        NFC, at most 232 bytes of UTF-8, extension kept; "recording" when nothing is left.
    """
    last = re.split(r"[/\\]", name)[-1]
    printable = unicodedata.normalize("NFC", "".join(c for c in last if not is_hidden(c)))
    stem, extension = _split_extension(printable.strip().lstrip(". ").strip())
    return (_cut(stem, MAX_STEM_BYTES) or "recording") + extension


def validated_conversation_id(conversation_id: str) -> str:
    """Return the id unchanged.

    Raises:
        InvalidInput: it is not 1 to 64 letters, digits, `_` or `-`.
    """
    if not _CONVERSATION_ID.fullmatch(conversation_id):
        raise InvalidInput(f"Conversation id {conversation_id[:80]!r} is not 1 to 64 letters, digits, '_' or '-'.")
    return conversation_id


def audio_key(conversation_id: str, filename: str, at: datetime) -> str:
    """Return the key of a recording, e.g. `conv_X/2026/01/15/meeting.wav`.

    Raises:
        InvalidInput: a bad conversation id, or an instant without time zone.
    """
    return f"{_folder(conversation_id, at)}/{safe_filename(filename)}"


def transcript_key(conversation_id: str, at: datetime) -> str:
    """Return the key of a transcript, e.g. `conv_X/2026/01/15/conv_X_transcript.txt`.

    Raises:
        InvalidInput: a bad conversation id, or an instant without time zone.
    """
    return f"{_folder(conversation_id, at)}/{conversation_id}_transcript.txt"


def metadata_key(conversation_id: str, filename: str, at: datetime) -> str:
    """Return the key of the metadata beside a recording, e.g. `conv_X/2026/01/15/meeting_metadata.json`.

    Raises:
        InvalidInput: a bad conversation id, or an instant without time zone.
    """
    stem, _ = _split_extension(safe_filename(filename))
    return f"{_folder(conversation_id, at)}/{stem}_metadata.json"


def distinct_key(key: str, token: str) -> str:
    """Return the key with a token added to the stem of its file name: `…/meeting-a1b2c3.wav`."""
    folder, _, name = key.rpartition("/")
    stem, extension = _split_extension(name)
    return f"{folder}/{stem}-{token}{extension}"


def attempt_key(key: str, attempt: int) -> str:
    """Return the key as the n-th attempt names its object: unchanged for the first, `…/meeting-try2.wav` later."""
    return key if attempt <= 1 else distinct_key(key, f"try{attempt}")


def validated_key(key: str) -> str:
    """Return the key unchanged.

    Raises:
        InvalidInput: a component is empty, hidden, `.` or `..`, or holds a NUL or a backslash.
    """
    parts = key.split("/")
    if any(not part or part.startswith(".") or "\0" in part or "\\" in part for part in parts):
        raise InvalidInput(f"{key[:200]!r} is not an object key.")
    return key


def parse_key(key: str) -> tuple[str, Kind] | None:
    """Return conversation id and kind of a key that this module may have made; None for any other.

    The kind is a guess where a store does not tell: a recording may have been called `a_metadata.json`.
    """
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    conversation_id, name = found.groups()
    if re.fullmatch(rf"{conversation_id}_transcript(-\w+)*\.txt", name):
        return conversation_id, "transcript"
    return conversation_id, "metadata" if _METADATA.search(name) else "audio"


def media_type(filename: str) -> str:
    """Return the audio or video type a name suggests, else one that nothing opens: never a page or a program."""
    guessed = mimetypes.guess_type(filename)[0] or ""
    return guessed if guessed.startswith(("audio/", "video/")) else "application/octet-stream"


def attachment(filename: str) -> str:
    """Return a Content-Disposition value (RFC 6266) that every client reads and none can be injected through."""
    name = safe_filename(filename)
    plain = re.sub(r'[^ -~]|["\\%]', "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _folder(conversation_id: str, at: datetime) -> str:
    if at.tzinfo is None:
        raise InvalidInput("The time of a recording needs a time zone.")
    day = at.astimezone(UTC)
    return f"{validated_conversation_id(conversation_id)}/{day.year:04d}/{day.month:02d}/{day.day:02d}"


def _split_extension(name: str) -> tuple[str, str]:
    extension = PurePosixPath(name).suffix
    if len(extension.encode()) > MAX_EXTENSION_BYTES or len(extension) < 2:
        return name, ""
    return name.removesuffix(extension), extension


def _cut(text: str, limit_bytes: int) -> str:
    return text.encode()[:limit_bytes].decode(errors="ignore").rstrip()
