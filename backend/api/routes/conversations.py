"""Reading, downloading and deleting conversations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse, RedirectResponse

from backend.api.dependencies import ServicesDep
from backend.api.problems import problem_responses
from backend.api.responses.policy import KEPT_PRIVATELY
from backend.api.responses.recording import _Recording, _repr_digest
from backend.api.responses.transcript import MEDIA_TYPES, RENDER, TranscriptFormat, _negotiate
from backend.api.schemas.conversations import ConversationDetail, ConversationPage, DeletionOut
from backend.api.schemas.transcripts import TranscriptOut
from backend.database.models import ConversationStatus
from backend.services.storage import PresignedUrl

router = APIRouter(prefix="/conversations", tags=["conversations"])


_TEXT = {"schema": {"type": "string"}}


_RECORDING = {"content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}}}


@router.get("", summary="List conversations, newest first", responses=problem_responses(422, 503))
async def list_conversations(
    services: ServicesDep,
    status: Annotated[ConversationStatus | None, Query(description="Only those in this state")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> ConversationPage:
    rows, total = await services.conversations.list(status=status, limit=limit, offset=offset)
    return ConversationPage.from_rows(rows, total, limit, offset)


@router.get("/{conversation_id}", summary="One conversation with its transcript", responses=problem_responses(404, 503))
async def get_conversation(conversation_id: str, services: ServicesDep) -> ConversationDetail:
    return ConversationDetail.from_row(await services.conversations.get(conversation_id))


@router.head("/{conversation_id}/transcript", include_in_schema=False)
@router.get(
    "/{conversation_id}/transcript",
    summary="The transcript as text, JSON, SRT or WebVTT",
    response_class=Response,
    responses={
        200: {
            "model": TranscriptOut,
            "content": {media: _TEXT for media in MEDIA_TYPES.values() if media != "application/json"},
        },
        **problem_responses(404, 406, 409, 422, 503),
    },
)
async def get_transcript(
    conversation_id: str,
    services: ServicesDep,
    wanted: Annotated[TranscriptFormat | None, Query(alias="format", description="Wins over Accept")] = None,
    accept: Annotated[list[str] | None, Header(include_in_schema=False)] = None,
) -> Response:
    kind = wanted or _negotiate(",".join(accept or ()))
    return RENDER[kind](await services.conversations.get_finished(conversation_id))


@router.head("/{conversation_id}/audio", include_in_schema=False)
@router.get(
    "/{conversation_id}/audio",
    summary="The recording; ranges are served, S3 objects by redirect",
    response_class=Response,
    responses={
        200: _RECORDING,
        206: {"description": "Part of the recording", **_RECORDING},
        307: {"description": "A presigned URL on S3"},
        **problem_responses(404, 416, 500, 503),
    },
)
async def get_audio(conversation_id: str, services: ServicesDep) -> Response:
    async def find() -> Response:
        access, conversation, audio = await services.conversations.get_audio(conversation_id)
        if isinstance(access, PresignedUrl):
            return RedirectResponse(access.url, 307, headers={"Cache-Control": "no-store"})
        recording = _Recording(
            access.path,
            media_type=audio.content_type,
            filename=conversation.filename,
            content_disposition_type="attachment",
            headers={"Cache-Control": KEPT_PRIVATELY, "Repr-Digest": _repr_digest(audio.sha256)},
        )
        recording.find_again = find
        return recording

    return await find()


@router.delete(
    "/{conversation_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a conversation: its rows and its stored files",
    responses={
        202: {"model": DeletionOut, "description": "Deleted, but a store that holds files of it cannot be reached now"},
        **problem_responses(404, 503),
    },
)
async def delete_conversation(conversation_id: str, services: ServicesDep) -> Response:
    """From the answer on nobody sees the conversation. What could not be deleted at once is deleted later."""
    deletion = await services.deletes.delete(conversation_id)
    if deletion.complete:
        return Response(status_code=204)
    return JSONResponse(DeletionOut.model_validate(deletion).model_dump(mode="json"), 202)
