"""Reading, downloading and deleting conversations."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import JSONResponse

from backend.api.dependencies import ServicesDep
from backend.api.problems import problem_responses
from backend.api.responses.recording import RecordingResponse, ServedRecording
from backend.api.responses.transcript import MEDIA_TYPES, RENDER, TranscriptFormat, _negotiate
from backend.api.schemas.conversations import ConversationDetail, ConversationPage, DeletionOut
from backend.api.schemas.transcripts import TranscriptOut
from backend.domain.states.conversations import ConversationStatus

router = APIRouter(prefix="/conversations", tags=["conversations"])


_TEXT = {"schema": {"type": "string"}}


_RECORDING = {"content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}}}


@router.get("", summary="List conversations, newest first", responses=problem_responses(422, 503))
async def list_conversations(
    services: ServicesDep,
    status: Annotated[ConversationStatus | None, Query(description="Only conversations in this state")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> ConversationPage:
    found, total = await services.conversations.list(status=status, limit=limit, offset=offset)
    return ConversationPage.from_views(found, total, limit, offset)


@router.get("/{conversation_id}", summary="One conversation with its transcript", responses=problem_responses(404, 503))
async def get_conversation(conversation_id: str, services: ServicesDep) -> ConversationDetail:
    return ConversationDetail.from_view(await services.conversations.get(conversation_id))


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
    wanted: Annotated[TranscriptFormat | None, Query(alias="format", description="Overrides the Accept header")] = None,
    accept: Annotated[list[str] | None, Header(include_in_schema=False)] = None,
) -> Response:
    kind = wanted or _negotiate(",".join(accept or ()))
    found = await services.conversations.get_finished(conversation_id)
    return await to_thread.run_sync(RENDER[kind], found)


@router.head("/{conversation_id}/audio", include_in_schema=False)
@router.get(
    "/{conversation_id}/audio",
    summary="The recording, with support for ranges; S3 objects by redirect",
    response_class=Response,
    responses={
        200: _RECORDING,
        206: {"description": "Part of the recording", **_RECORDING},
        304: {"description": "The recording is as the client has it"},
        307: {"description": "A presigned URL on S3"},
        **problem_responses(404, 416, 500, 503),
    },
)
async def get_audio(conversation_id: str, services: ServicesDep) -> Response:
    async def find() -> RecordingResponse:
        access, conversation, audio = await services.conversations.get_audio(conversation_id)
        recording = ServedRecording(
            conversation.filename, audio.content_type, audio.size_bytes, audio.sha256, audio.created_at
        )
        return RecordingResponse(recording, access, find)

    return await find()


@router.delete(
    "/{conversation_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a conversation with its rows and stored files",
    responses={
        202: {"model": DeletionOut, "description": "Deleted, but a store with some of its files cannot be reached now"},
        **problem_responses(404, 503),
    },
)
async def delete_conversation(conversation_id: str, services: ServicesDep) -> Response:
    """The conversation is no longer visible after the response. Files that cannot be deleted now are deleted later."""
    deletion = await services.deletes.delete(conversation_id)
    if deletion.complete:
        return Response(status_code=204)
    return JSONResponse(DeletionOut.model_validate(deletion).model_dump(mode="json"), 202)
