"""A request's recording, wherever it comes from: the form's file, a URL, or an upload that was made before."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.exceptions import HTTPException
from starlette.requests import Request

from backend.api.requests.multipart import MultipartUpload
from backend.services.jobs.intake import ReceivedRecording
from backend.services.storage import SpooledFile
from backend.wiring.services import Services

FILE_FIELD = "file"
SOURCES = (FILE_FIELD, "url", "upload_id")


def open_form(request: Request, services: Services) -> MultipartUpload:
    """The form of a request whose body nobody has read. Raises as `MultipartUpload`."""
    settings = services.settings
    return MultipartUpload(
        request,
        file_field=FILE_FIELD,
        max_bytes=settings.max_upload_bytes,
    )


@asynccontextmanager
async def recording_of(
    form: MultipartUpload, spooled: SpooledFile, services: Services, owner: str
) -> AsyncGenerator[ReceivedRecording, None]:
    """The one recording that a form means, once its body was read.

    Raises:
        HTTPException: 422 if it means none or several.
        AppError: what it means cannot be had.
    """
    fields = {name: form.fields[name].strip() for name in SOURCES if form.fields.get(name, "").strip()}
    given = [*fields] + ([FILE_FIELD] if form.filename is not None else [])
    if not given:
        raise HTTPException(422, "The form has no 'file' field. With curl: -F \"file=@meeting.wav\"")
    if len(given) > 1:
        raise HTTPException(422, f"Send one recording, not {' and '.join(sorted(given))} together.")
    if url := fields.get("url"):
        async with (
            services.fetcher.open(url) as remote,
            services.storage.spool(
                remote.chunks, max_bytes=services.settings.max_upload_bytes, expected_bytes=remote.size_bytes
            ) as file,
        ):
            yield ReceivedRecording(file, remote.filename, remote.content_type)
    elif upload_id := fields.get("upload_id"):
        await services.uploads.check_owner(upload_id, owner)
        async with services.uploads.claim(upload_id) as (file, filename, content_type):
            yield ReceivedRecording(file, filename, content_type)
    else:
        yield ReceivedRecording(spooled, form.filename or "", form.content_type)
