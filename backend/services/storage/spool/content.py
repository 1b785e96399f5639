"""What a caller may hand over to be saved, seen as one stream of chunks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from pathlib import Path

from backend.concurrency.lanes import ThreadLane
from backend.errors import InvalidInput
from backend.services.storage.files import CHUNK_BYTES


def as_stream(content: bytes | Path | AsyncIterable[bytes], disk: ThreadLane) -> AsyncIterable[bytes]:
    """Return the content as a stream. A file is read, never linked or moved: it stays the caller's."""
    if isinstance(content, bytes):
        return _once(content)
    return _file(content, disk) if isinstance(content, Path) else content


def as_json(metadata: Mapping[str, object]) -> bytes:
    """Return indented UTF-8 JSON; instants and paths become strings.

    Raises:
        InvalidInput: a value that JSON has no words for, such as NaN.
    """
    try:
        text = json.dumps(metadata, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"The metadata cannot be written as JSON: {error}.") from error
    return text.encode("utf-8", "replace")


async def _once(data: bytes) -> AsyncIterator[bytes]:
    # Slices of a view: the caller holds the bytes anyway, a second copy would not help him.
    view = memoryview(data)
    for offset in range(0, len(view), CHUNK_BYTES):
        yield bytes(view[offset : offset + CHUNK_BYTES])


async def _file(path: Path, disk: ThreadLane) -> AsyncIterator[bytes]:
    try:
        file = await disk.run(path.open, "rb", buffering=0)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from error
    try:
        while chunk := await disk.run(file.read, CHUNK_BYTES):
            yield chunk
    finally:
        file.close()
