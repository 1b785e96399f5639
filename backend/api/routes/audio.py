"""POST /audio/process and GET /audio/storage-info."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from backend.api.dependencies import ServicesDep
from backend.api.multipart import MultipartUpload
from backend.api.problems import problem_responses
from backend.api.schemas import ProcessForm, ProcessResponse, StorageInfoOut
from backend.services.processing import ProcessOptions, Upload

router = APIRouter(prefix="/audio", tags=["audio"])

FILE_FIELD = "file"


def _request_body() -> dict[str, object]:
    """OpenAPI's view of a body that the route reads as a stream."""
    schema = ProcessForm.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "The recording: any common audio or video file"}
    # Swagger UI offers a file picker for `format: binary`; nullable unions would turn its fields into JSON editors.
    fields = {name: _plain(field) for name, field in schema["properties"].items()}
    form = {"type": "object", "required": [FILE_FIELD], "properties": {FILE_FIELD: file, **fields}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


def _plain(field: dict[str, object]) -> dict[str, object]:
    options = field.get("anyOf")
    first = next(iter(options)) if isinstance(options, list) else {}
    return {**first, **{key: value for key, value in field.items() if key not in {"anyOf", "default", "title"}}}


@router.post(
    "/process",
    summary="Transcribe a recording: who said what",
    responses=problem_responses(400, 408, 409, 413, 415, 422, 500, 503, 507),
    openapi_extra=_request_body(),
)
async def process_audio(request: Request, services: ServicesDep) -> ProcessResponse:
    """Store a recording, transcribe it, tell its speakers apart and store the transcript.

    The answer comes when everything is stored. Silence gives an empty transcript with no speakers.
    """
    settings = services.settings
    form = MultipartUpload(
        request,
        file_field=FILE_FIELD,
        max_bytes=settings.max_upload_bytes,
        stall_timeout_s=settings.upload_stall_timeout_s,
    )
    async with services.storage.spool(form.file_chunks(), max_bytes=settings.max_upload_bytes) as spooled:
        if form.filename is None:
            raise HTTPException(422, "The form has no 'file' field. With curl: -F \"file=@meeting.wav\"")
        options = _options(form.fields)
        upload = Upload(spooled, form.filename, form.content_type)
        return ProcessResponse.from_processed(await services.processing.process(upload, options))


@router.get("/storage-info", summary="Where recordings are stored right now", responses=problem_responses(500))
async def storage_info(services: ServicesDep) -> StorageInfoOut:
    return StorageInfoOut.model_validate(await services.storage.get_info())


def _options(fields: dict[str, str]) -> ProcessOptions:
    try:
        return ProcessForm.model_validate(fields).to_options()
    except ValidationError as error:
        found = [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_context=False)]
        raise RequestValidationError(found) from error
