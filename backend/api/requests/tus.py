"""The words of the tus protocol 1.0 (https://tus.io/protocols/resumable-upload): headers in, headers out."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from email.utils import format_datetime

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from backend.api.requests.multipart import valid_media_type
from backend.api.requests.stream import StreamedBody
from backend.services.storage.spool.resumable import Checksum
from backend.services.uploads.service import NewUpload
from backend.services.uploads.views import UploadView

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,creation-defer-length,termination,checksum,expiration"
ALGORITHMS = {"sha1": 20, "sha256": 32}
"""Length of the digest in bytes."""
PIECE = "application/offset+octet-stream"
MAX_METADATA_CHARS = 8192


class TusRoute(StreamedBody):
    """Answers with tus' version, errors included."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_as_tus(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Tus-Resumable"] = VERSION
            await send(message)

        await super().handle(scope, receive, send_as_tus)


def check_version(headers: Headers) -> None:
    """Raises HTTPException: 412 for a client of another version."""
    if (version := headers.get("tus-resumable")) != VERSION:
        said = f"Tus-Resumable is {version}" if version else "the header Tus-Resumable is missing"
        raise HTTPException(412, f"This is tus {VERSION}, and {said}.", {"Tus-Version": VERSION})


def is_piece(headers: Headers) -> bool:
    """Whether the body is a piece of an upload."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == PIECE


def check_piece(headers: Headers) -> None:
    """Raises HTTPException: 415 for a body of another type."""
    if not is_piece(headers):
        raise HTTPException(415, f"Send the piece as Content-Type: {PIECE}.")


def new_upload(headers: Headers, owner: str) -> NewUpload:
    """What a POST says of the upload that it begins.

    Raises:
        HTTPException: 400
    """
    deferred = headers.get("upload-defer-length")
    if deferred not in (None, "1"):
        raise HTTPException(400, "Upload-Defer-Length is 1 or left out.")
    size_bytes = length_of(headers)
    if (size_bytes is None) == (deferred is None):
        raise HTTPException(400, "Send either Upload-Length, the size in bytes, or Upload-Defer-Length: 1.")
    details = _metadata(headers.get("upload-metadata", ""))
    filename = _decoded(details, "filename") or _decoded(details, "name") or "recording"
    claimed = _decoded(details, "filetype") or _decoded(details, "type") or ""
    return NewUpload(filename, valid_media_type(claimed), size_bytes, details, owner)


def length_of(headers: Headers) -> int | None:
    """Raises HTTPException: 400"""
    return None if "upload-length" not in headers else _count(headers, "Upload-Length")


def offset_of(headers: Headers) -> int:
    """Raises HTTPException: 400"""
    return _count(headers, "Upload-Offset")


def checksum_of(headers: Headers) -> Checksum | None:
    """Raises HTTPException: 400 for what cannot be checked."""
    given = headers.get("upload-checksum")
    if given is None:
        return None
    algorithm, _, encoded = given.partition(" ")
    if algorithm not in ALGORITHMS:
        raise HTTPException(400, f"Upload-Checksum knows {' and '.join(ALGORITHMS)}, not {algorithm[:40]!r}.")
    try:
        digest = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != ALGORITHMS[algorithm]:
        raise HTTPException(400, f"Upload-Checksum: {algorithm} wants {ALGORITHMS[algorithm]} bytes in Base64.")
    return Checksum(algorithm, digest)


def progress_headers(upload: UploadView) -> dict[str, str]:
    """How far an upload is, and how long it is kept."""
    return {
        "Upload-Offset": str(upload.offset_bytes),
        "Upload-Expires": format_datetime(upload.expires_at, usegmt=True),
        "Cache-Control": "no-store",
    }


def state_headers(upload: UploadView) -> dict[str, str]:
    """All that is known of an upload."""
    size = {"Upload-Defer-Length": "1"} if upload.size_bytes is None else {"Upload-Length": str(upload.size_bytes)}
    details = ",".join(f"{key} {value}".rstrip() for key, value in upload.details.items())
    return progress_headers(upload) | size | ({"Upload-Metadata": details} if details else {})


def _count(headers: Headers, name: str) -> int:
    value = headers.get(name, "")
    if not re.fullmatch(r"[0-9]{1,18}", value):
        raise HTTPException(400, f"{name} is the header for a number of bytes; it says {value[:40]!r}.")
    return int(value)


def _metadata(header: str) -> dict[str, str]:
    """Keys and their values, still in Base64, so that they can be given back as they came."""
    if len(header) > MAX_METADATA_CHARS:
        raise HTTPException(400, f"Upload-Metadata is longer than {MAX_METADATA_CHARS} characters.")
    pairs = [pair.strip().partition(" ") for pair in header.split(",") if pair.strip()]
    details = {key: value.strip() for key, _, value in pairs}
    try:
        for value in details.values():
            base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise HTTPException(400, "Upload-Metadata is a list of keys with values in Base64.") from error
    if len(details) != len(pairs):
        raise HTTPException(400, "Upload-Metadata has a key twice.")
    return details


def _decoded(details: Mapping[str, str], key: str) -> str:
    return base64.b64decode(details.get(key, "")).decode("utf-8", "replace")
