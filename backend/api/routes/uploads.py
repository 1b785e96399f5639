"""/uploads: recordings that come in several requests, by the tus protocol or straight to the bucket."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.exceptions import HTTPException

from backend.api.dependencies import OwnerDep, ScopeDep, ServicesDep
from backend.api.problems import problem_responses
from backend.api.requests import tus
from backend.api.requests.address import own_path
from backend.api.requests.stream import body_of
from backend.api.requests.tus import TusRoute
from backend.api.schemas.uploads import PresignIn, PresignOut, UploadOut, UploadPage
from backend.errors import AppError, Conflict
from backend.services.storage.spool.resumable import Checksum
from backend.services.uploads.views import UploadView
from backend.wiring.services import Services

router = APIRouter(prefix="/uploads", tags=["uploads"])
tus_router = APIRouter(prefix="/uploads", tags=["uploads"], route_class=TusRoute)

APPEND_PROBLEMS = problem_responses(400, 404, 408, 409, 410, 412, 413, 415, 423, 429, 503, 507)


async def _own_upload(upload_id: str, services: ServicesDep, owner: OwnerDep) -> str:
    """Raise NotFound for another owner's upload as for a missing one."""
    await services.uploads.check_owner(upload_id, owner)
    return upload_id


async def _removable_upload(upload_id: str, services: ServicesDep, scope: ScopeDep) -> str:
    """An administrator may remove any upload."""
    await services.uploads.check_owner(upload_id, scope)
    return upload_id


OwnUploadId = Annotated[str, Depends(_own_upload)]
RemovableUploadId = Annotated[str, Depends(_removable_upload)]


@router.get("", summary="List open uploads, newest first", responses=problem_responses(422, 503))
async def list_uploads(
    services: ServicesDep,
    scope: ScopeDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> UploadPage:
    """Administrators see the uploads of every API key, others their own."""
    found, total = await services.uploads.list(scope, limit=limit, offset=offset)
    return UploadPage.from_uploads(found, total, limit, offset)


@tus_router.options("", status_code=204, summary="Supported parts of the tus protocol")
async def describe_protocol(services: ServicesDep) -> Response:
    """Version, extensions, checksum algorithms and maximum size, in headers."""
    headers = {
        "Tus-Version": tus.VERSION,
        "Tus-Extension": tus.EXTENSIONS,
        "Tus-Checksum-Algorithm": ",".join(tus.ALGORITHMS),
        "Tus-Max-Size": str(services.settings.max_upload_bytes),
    }
    return Response(status_code=204, headers=headers)


@tus_router.options("/{upload_id}", status_code=204, include_in_schema=False)
async def describe_protocol_again(upload_id: str, services: ServicesDep) -> Response:  # noqa: ARG001  tus' rule
    return await describe_protocol(services)


@tus_router.post(
    "",
    status_code=201,
    summary="Begin a resumable upload (tus)",
    responses=problem_responses(400, 412, 413, 429, 503, 507),
)
async def create_upload(request: Request, services: ServicesDep, owner: OwnerDep) -> Response:
    """`Location` is the URL for the pieces. The body may be the first piece."""
    tus.check_version(request.headers)
    new = tus.new_upload(request.headers, owner)
    checksum = tus.checksum_of(request.headers)
    upload = await services.uploads.create(new)
    if tus.is_piece(request.headers):
        upload = await _append_first(request, services, upload, checksum)
    location = own_path(request.scope, f"/uploads/{upload.id}")
    return Response(status_code=201, headers={"Location": location, **tus.progress_headers(upload)})


@tus_router.head(
    "/{upload_id}", summary="Offset of a resumable upload (tus)", responses=problem_responses(404, 409, 410, 412, 503)
)
async def get_upload(upload_id: OwnUploadId, request: Request, services: ServicesDep) -> Response:
    """`Upload-Offset` is the number of bytes stored so far: continue from there."""
    tus.check_version(request.headers)
    upload = await services.uploads.get(upload_id)
    if upload.is_direct:
        raise Conflict("This upload goes straight to the bucket, which alone knows its offset.")
    return Response(headers=tus.state_headers(upload))


@tus_router.patch(
    "/{upload_id}", status_code=204, summary="Send a piece of a resumable upload (tus)", responses=APPEND_PROBLEMS
)
async def append_to_upload(upload_id: OwnUploadId, request: Request, services: ServicesDep) -> Response:
    """The response is sent once the piece is on disk. If the connection breaks, the bytes received so far are kept.

    A piece sent with `Upload-Checksum` (sha1 or sha256) is kept as a whole or not at all; 460 reports a mismatch.
    """
    tus.check_version(request.headers)
    tus.check_piece(request.headers)
    upload = await services.uploads.append(
        upload_id,
        body_of(request),
        offset_bytes=tus.offset_of(request.headers),
        size_bytes=tus.length_of(request.headers),
        checksum=tus.checksum_of(request.headers),
    )
    return Response(status_code=204, headers=tus.progress_headers(upload))


@tus_router.delete(
    "/{upload_id}", status_code=204, summary="Cancel an upload", responses=problem_responses(404, 412, 423, 503)
)
async def delete_upload(upload_id: RemovableUploadId, request: Request, services: ServicesDep) -> Response:
    """Deletes everything received so far, on disk or in the bucket. Administrators delete uploads of any API key."""
    if "tus-resumable" in request.headers:
        tus.check_version(request.headers)
    await services.uploads.delete(upload_id)
    return Response(status_code=204)


@router.post(
    "/presign",
    status_code=201,
    summary="Begin an upload straight to the bucket",
    responses=problem_responses(409, 413, 422, 429, 503),
)
async def presign_upload(wanted: PresignIn, services: ServicesDep, owner: OwnerDep, response: Response) -> PresignOut:
    """Returns URLs to PUT the parts of a recording to, in any order and in parallel. The bytes bypass Aperta."""
    begun = await services.uploads.direct.presign(wanted.filename, wanted.size_bytes, wanted.media_type, owner)
    response.headers["Cache-Control"] = "no-store"
    return PresignOut.from_presigned(begun)


@router.post(
    "/{upload_id}/complete",
    summary="Finish an upload straight to the bucket",
    responses=problem_responses(404, 409, 410, 503),
)
async def complete_upload(upload_id: OwnUploadId, services: ServicesDep) -> UploadOut:
    """Call this once all parts are in the bucket, then POST /audio/process with `upload_id`."""
    return UploadOut.from_upload(await services.uploads.complete(upload_id))


@tus_router.post("/{upload_id}", status_code=204, include_in_schema=False)
async def overridden(
    upload_id: RemovableUploadId, request: Request, services: ServicesDep, owner: OwnerDep
) -> Response:
    """For clients behind proxies that block PATCH and DELETE."""
    method = request.headers.get("x-http-method-override", "").upper()
    if method == "PATCH":
        await services.uploads.check_owner(upload_id, owner)
        return await append_to_upload(upload_id, request, services)
    if method == "DELETE":
        return await delete_upload(upload_id, request, services)
    raise HTTPException(
        405, "POST here needs X-HTTP-Method-Override: PATCH or DELETE.", {"Allow": "HEAD, PATCH, DELETE"}
    )


async def _append_first(
    request: Request, services: Services, upload: UploadView, checksum: Checksum | None
) -> UploadView:
    try:
        return await services.uploads.append(upload.id, body_of(request), offset_bytes=0, checksum=checksum)
    except AppError:
        # The client never learns the URL of this upload.
        await services.uploads.delete(upload.id)
        raise
