"""Reading, downloading and deleting conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse
from starlette.exceptions import HTTPException

from backend.api.dependencies import ServicesDep
from backend.api.problems import problem_responses
from backend.api.schemas import ConversationDetail, ConversationPage, transcript_of
from backend.database.models import Conversation, ConversationStatus
from backend.database.repositories import to_transcript
from backend.domain.formats import to_srt, to_text, to_vtt
from backend.services.storage import PresignedUrl
from backend.services.storage.keys import attachment

router = APIRouter(prefix="/conversations", tags=["conversations"])


class TranscriptFormat(StrEnum):
    TXT = "txt"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"


MEDIA_TYPES: Mapping[TranscriptFormat, str] = {
    TranscriptFormat.JSON: "application/json",
    TranscriptFormat.TXT: "text/plain",
    TranscriptFormat.VTT: "text/vtt",
    TranscriptFormat.SRT: "application/x-subrip",
}


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


@router.get(
    "/{conversation_id}/transcript",
    summary="The transcript as text, JSON, SRT or WebVTT",
    response_class=Response,
    responses={
        200: {"content": {media: {"schema": {"type": "string"}} for media in MEDIA_TYPES.values()}},
        **problem_responses(404, 406, 409, 422, 503),
    },
)
async def get_transcript(
    conversation_id: str,
    services: ServicesDep,
    wanted: Annotated[TranscriptFormat | None, Query(alias="format", description="Wins over Accept")] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
) -> Response:
    kind = wanted or _negotiate(accept)
    return RENDER[kind](await services.conversations.get_finished(conversation_id))


@router.get(
    "/{conversation_id}/audio",
    summary="The recording; ranges are served, S3 objects by redirect",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        206: {"description": "Part of the recording"},
        307: {"description": "A presigned URL on S3"},
        **problem_responses(404, 416, 503),
    },
)
async def get_audio(conversation_id: str, services: ServicesDep) -> Response:
    access, conversation, content_type = await services.conversations.get_audio(conversation_id)
    if isinstance(access, PresignedUrl):
        return RedirectResponse(access.url, 307, headers={"Cache-Control": "no-store"})
    return FileResponse(
        access.path,
        media_type=content_type,
        filename=conversation.filename,
        content_disposition_type="attachment",
        headers={"X-Content-Type-Options": "nosniff"},
    )


@router.delete(
    "/{conversation_id}",
    status_code=204,
    summary="Delete a conversation: its rows and its stored files",
    responses=problem_responses(404, 503),
)
async def delete_conversation(conversation_id: str, services: ServicesDep) -> None:
    await services.conversations.delete(conversation_id)


def _negotiate(accept: str) -> TranscriptFormat:
    """The format that the Accept header likes best (RFC 9110, section 12.5.1); text for `*/*`.

    Raises:
        HTTPException: 406.
    """
    wishes = []
    for position, part in enumerate(accept.split(",")):
        media, _, parameters = part.strip().partition(";")
        quality = parameters.replace(" ", "").partition("q=")[2] or "1"
        try:
            wishes.append((-float(quality.split(";")[0]), position, media.strip().lower()))
        except ValueError:
            continue
    for negative_quality, _, media in sorted(wishes):
        for kind, name in {TranscriptFormat.TXT: "text/*", TranscriptFormat.JSON: "application/*"}.items():
            if negative_quality < 0 and media in ("*/*", name):
                return TranscriptFormat.TXT if media == "*/*" else kind
        for kind, offered in MEDIA_TYPES.items():
            if negative_quality < 0 and media == offered:
                return kind
    raise HTTPException(406, f"Only {', '.join(MEDIA_TYPES.values())} can be sent.")


def _text(render: Callable[[Conversation], str], kind: TranscriptFormat) -> Callable[[Conversation], Response]:
    def response(conversation: Conversation) -> Response:
        return PlainTextResponse(
            render(conversation), media_type=MEDIA_TYPES[kind], headers=_download_headers(conversation, kind)
        )

    return response


def _json(conversation: Conversation) -> Response:
    content = transcript_of(conversation).model_dump(mode="json")
    return JSONResponse(content, headers=_download_headers(conversation, TranscriptFormat.JSON))


def _download_headers(conversation: Conversation, kind: TranscriptFormat) -> dict[str, str]:
    name = attachment(f"{Path(conversation.filename).stem}.{kind}").replace("attachment", "inline", 1)
    return {"Content-Disposition": name, "X-Content-Type-Options": "nosniff"}


RENDER: Mapping[TranscriptFormat, Callable[[Conversation], Response]] = {
    TranscriptFormat.JSON: _json,
    TranscriptFormat.TXT: _text(lambda row: to_text(to_transcript(row)), TranscriptFormat.TXT),
    TranscriptFormat.SRT: _text(lambda row: to_srt(to_transcript(row)), TranscriptFormat.SRT),
    TranscriptFormat.VTT: _text(lambda row: to_vtt(to_transcript(row)), TranscriptFormat.VTT),
}
