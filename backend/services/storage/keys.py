"""The grammar of object keys and the guard against path traversal. Pure: touches no file and no network.

    audio       conv_X/2026/01/15/meeting.wav
    metadata    conv_X/2026/01/15/meeting_metadata.json
    transcript  conv_X/2026/01/15/conv_X_transcript.txt

Original file names are data: they enter a path only through `safe_filename`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from backend.domain.filenames import _split_extension, safe_filename
from backend.errors import InvalidInput
from backend.services.storage.values import ObjectKind

PREFIXES: dict[ObjectKind, str] = {"audio": "audio/", "transcript": "transcripts/", "metadata": "metadata/"}
"""Put before the key in a bucket; a local folder needs no such split."""


INCOMING = "incoming/"
"""In a bucket, apart from what Aperta keeps, what clients send straight there; not recordings yet."""


_CONVERSATION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


_KEY = re.compile(r"([A-Za-z0-9_-]{1,64})/\d{4}/\d{2}/\d{2}/([^/\0]+)")


_OWN_FOLDERS = (".spool", ".quarantine")


_OWN = re.compile(r"conv_[A-Za-z0-9_-]{1,59}(/\d{4}(/\d{2}(/\d{2}(/[^/\0]+)?)?)?)?")


_METADATA = re.compile(r"_metadata(-\w+)*\.json$")


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


def parse_key(key: str) -> tuple[str, ObjectKind] | None:
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


def made_here(path: str) -> bool:
    """Whether Aperta makes files or folders of this path below UPLOAD_DIR: its hidden folders and all in them, and what
    the keys of its conversations lead through."""
    return path.split("/", 1)[0] in _OWN_FOLDERS or _OWN.fullmatch(path) is not None


def _folder(conversation_id: str, at: datetime) -> str:
    if at.tzinfo is None:
        raise InvalidInput("The time of a recording needs a time zone.")
    day = at.astimezone(UTC)
    return f"{validated_conversation_id(conversation_id)}/{day.year:04d}/{day.month:02d}/{day.day:02d}"
