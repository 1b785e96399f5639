"""Which recording a form means: its file, a URL, or an upload made before."""

from __future__ import annotations

from collections.abc import Collection

from starlette.exceptions import HTTPException
from starlette.requests import Request

from backend.api.requests.multipart import MultipartUpload
from backend.services.storage import SpooledFile
from backend.services.uploads.sources import ReceivedRecording, RemoteRecording, Source, UploadedRecording

FILE_FIELD = "file"
FILE_FIELDS = (FILE_FIELD, "audio", "audio_file", "files", "files[]")
"""The name that is documented, and those that clients of other services use."""
SOURCES = (FILE_FIELD, "url", "upload_id")


def open_form(request: Request, max_bytes: int, text_fields: Collection[str] = ()) -> MultipartUpload:
    """The form of a request whose body has not been read. Raises as `MultipartUpload`."""
    return MultipartUpload(request, file_fields=FILE_FIELDS, text_fields=text_fields, max_bytes=max_bytes)


def source_of(form: MultipartUpload, spooled: SpooledFile) -> Source:
    """The one recording that a form means.

    Args:
        form: read to its end.
        spooled: the form's file; empty if it has none.

    Raises:
        HTTPException: 422 if the form means no recording, or several.
    """
    fields = {name: form.fields[name].strip() for name in SOURCES if form.fields.get(name, "").strip()}
    given = [*fields] + ([FILE_FIELD] if form.filename is not None else [])
    if not given:
        raise HTTPException(422, "The form has no 'file' field. With curl: -F \"file=@meeting.wav\"")
    if len(given) > 1:
        raise HTTPException(422, f"Send one recording, not {' and '.join(sorted(given))} together.")
    if url := fields.get("url"):
        return RemoteRecording(url)
    if upload_id := fields.get("upload_id"):
        return UploadedRecording(upload_id)
    return ReceivedRecording(spooled, form.filename or "", form.content_type)
