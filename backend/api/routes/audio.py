"""POST /audio/process and GET /audio/storage-info."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from backend.api.dependencies import OwnerDep, ServicesDep
from backend.api.problems import problem_responses
from backend.api.requests.address import own_path
from backend.api.requests.source import FILE_FIELD, FILE_FIELDS, open_form, source_of
from backend.api.requests.stream import StreamedBody
from backend.api.schemas.audio import ProcessForm, ProcessResponse
from backend.api.schemas.jobs import JobOut
from backend.api.schemas.storage import StorageInfoOut
from backend.errors import DatabaseUnavailable
from backend.services.jobs.intake import Order, Submission
from backend.services.storage import SpooledFile

router = APIRouter(prefix="/audio", tags=["audio"], route_class=StreamedBody)

ACCEPTED: dict[int | str, dict[str, object]] = {
    202: {"model": JobOut, "description": "Accepted; `Location` names the job", "headers": {"Location": {}}}
}
_RESPOND_ASYNC = re.compile(r"(^|[,;\s])respond-async($|[,;\s])", re.IGNORECASE)


def _request_body() -> dict[str, object]:
    """OpenAPI's view of a body that the route reads as a stream."""
    schema = ProcessForm.model_json_schema()
    says = f"The recording: any common audio or video file. {_listed(FILE_FIELDS[1:])} are other names of this field"
    file = {"type": "string", "format": "binary", "description": says}
    # Swagger UI offers a file picker for `format: binary`; nullable unions would turn its fields into JSON editors.
    fields = {name: _plain(field) for name, field in schema["properties"].items()}
    form = {"type": "object", "properties": {FILE_FIELD: file, **fields}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


def _listed(names: Sequence[str]) -> str:
    *others, last = (f"`{name}`" for name in names)
    return f"{', '.join(others)} and {last}"


def _plain(field: dict[str, object]) -> dict[str, object]:
    options = field.get("anyOf")
    first = next(iter(options)) if isinstance(options, list) else {}
    return {**first, **{key: value for key, value in field.items() if key not in {"anyOf", "default", "title"}}}


@router.post(
    "/process",
    summary="Transcribe a recording: who said what",
    response_model=ProcessResponse,
    responses={**ACCEPTED, **problem_responses(400, 408, 409, 413, 415, 422, 429, 500, 502, 503, 507)},
    openapi_extra=_request_body(),
)
async def process_audio(
    request: Request,
    services: ServicesDep,
    owner: OwnerDep,
    prefer: Annotated[str | None, Header(description="`respond-async` (RFC 7240): do not wait")] = None,
    idempotency_key: Annotated[
        str | None, Header(max_length=255, description="A request with the same key gives the same conversation")
    ] = None,
    respond_async: Annotated[bool, Query(alias="async", description="Do not wait: answer 202 with a job")] = False,
    dedupe: Annotated[bool, Query(description="If these bytes were processed before, give that conversation")] = False,
) -> ProcessResponse | Response:
    """Store a recording, transcribe it, tell its speakers apart and store the transcript.

    The recording is the form's `file`, the one at its `url`, or an upload made before, named by its `upload_id`. Once
    it has arrived, it is processed even if the client hangs up or the server is killed. The answer comes when
    everything is stored; silence gives an empty transcript with no speakers.
    """
    form = open_form(request, services.settings.max_upload_bytes, ProcessForm.model_fields)

    def read_order(file: SpooledFile) -> Order:
        fields = _fields(form.fields)
        how = Submission(idempotency_key, dedupe, fields.callback_url, owner)
        return Order(source_of(form, file), fields.to_options(), how)

    job = await services.intake.accept_form(form.file_chunks(), read_order, owner=owner, size_bytes=form.size_bytes)
    if respond_async or (prefer and _RESPOND_ASYNC.search(prefer)):
        headers = {"Location": own_path(request.scope, f"/jobs/{job.id}"), "Preference-Applied": "respond-async"}
        return JSONResponse(JobOut.from_job(job).model_dump(mode="json"), 202, headers)
    return ProcessResponse.from_result(*await services.jobs.result(await services.jobs.wait(job.id)))


@router.get("/storage-info", summary="Where recordings are stored right now", responses=problem_responses(500))
async def storage_info(services: ServicesDep) -> StorageInfoOut:
    shown = StorageInfoOut.model_validate(await services.storage.get_info())
    with suppress(DatabaseUnavailable):
        waiting = await services.drain.backlog()
        shown.drain_pending_objects, shown.drain_pending_bytes = waiting.objects, waiting.bytes
        shown.drain_oldest_s, shown.drain_parked_objects = waiting.oldest_s, waiting.parked
    return shown


def _fields(fields: dict[str, str]) -> ProcessForm:
    try:
        return ProcessForm.model_validate(fields)
    except ValidationError as error:
        found = [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_context=False)]
        raise RequestValidationError(found) from error
