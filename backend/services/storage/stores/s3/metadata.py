"""The metadata that travels on an S3 object: HTTP headers, so ASCII, short and few. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

MAX_VALUE_CHARS = 256
MAX_TOTAL_BYTES = 1800
"""S3 allows 2 KB for all names and values together."""


def object_metadata(values: Mapping[str, object]) -> dict[str, str]:
    """Return values as S3 user metadata: `speaker_count=2` becomes `speaker-count: 2`.

    None is left out, non-ASCII characters become `?`, and what does not fit any more is dropped, the hash never: the
    full metadata is a separate object.
    """
    ordered = sorted(values.items(), key=lambda item: item[0] != "sha256")
    result: dict[str, str] = {}
    left_bytes = MAX_TOTAL_BYTES
    for name, value in ordered:
        header, text = _header(name), _text(value)
        left_bytes -= len(header) + len(text)
        if value is not None and header and left_bytes >= 0:
            result[header] = text
    return result


def _header(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _text(value: object) -> str:
    plain = value.isoformat() if isinstance(value, datetime) else str(value)
    ascii_only = plain.encode("ascii", "replace").decode()
    return re.sub(r"[^ -~]", " ", ascii_only).strip()[:MAX_VALUE_CHARS]
