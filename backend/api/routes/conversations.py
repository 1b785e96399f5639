"""Reading, downloading and deleting conversations."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import anyio
from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from backend.api.dependencies import ServicesDep
from backend.api.problems import problem_responses
from backend.api.schemas import ConversationDetail, ConversationPage, DeletionOut, TranscriptOut, transcript_of
from backend.database.models import Conversation, ConversationStatus
from backend.database.repositories import to_transcript
from backend.domain.formats import to_srt, to_text, to_vtt
from backend.errors import ObjectMissing
from backend.services.storage import PresignedUrl
from backend.services.storage.keys import attachment

router = APIRouter(prefix="/conversations", tags=["conversations"])


class TranscriptFormat(StrEnum):
    TXT = "txt"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"


MEDIA_TYPES: Mapping[TranscriptFormat, str] = {
    TranscriptFormat.TXT: "text/plain",
    TranscriptFormat.JSON: "application/json",
    TranscriptFormat.VTT: "text/vtt",
    TranscriptFormat.SRT: "application/x-subrip",
}
"""In the order in which they are sent if the client does not mind."""

_TEXT = {"schema": {"type": "string"}}
_RECORDING = {"content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}}}
_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{0,18})|-[0-9]{1,18}")


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
            headers={"X-Content-Type-Options": "nosniff", "Repr-Digest": _repr_digest(audio.sha256)},
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


class _Recording(FileResponse):
    """A file whose errors are problem details, and whose malformed ranges are ignored (RFC 9110, section 14.2).

    Attributes:
        find_again: gives the response anew when the file is gone; it may have moved to another store.
    """

    find_again: Callable[[], Awaitable[Response]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Headers(scope=scope).get("range")
        if asked is not None and not _is_range(asked):
            scope = {**scope, "headers": [header for header in scope["headers"] if header[0] != b"range"]}
        start: Message | None = None

        async def send_late(message: Message) -> None:
            """Hold the start back until the file is open: what went wrong by then can still be said."""
            nonlocal start
            if message["type"] == "http.response.start":
                _refuse_unsatisfiable(message)
                start = message
                return
            if start is not None:
                await send(start)
                start = None
            await send(message)

        try:
            self.stat_result = await anyio.to_thread.run_sync(os.stat, self.path)
            self.set_stat_headers(self.stat_result)
            await super().__call__(scope, receive, send_late)
        except FileNotFoundError as error:
            found = await self.find_again() if self.find_again else None
            if found is None or (isinstance(found, _Recording) and found.path == self.path):
                raise ObjectMissing("The recording is gone from storage: it was deleted at this moment.") from error
            await found(scope, receive, send)


def _repr_digest(sha256: str) -> str:
    """The hash of the whole recording as RFC 9530 writes it, also when only a range of it is sent."""
    return f"sha-256=:{b64encode(bytes.fromhex(sha256)).decode()}:"


def _is_range(asked: str) -> bool:
    unit, _, listed = asked.partition("=")
    parts = [part.strip() for part in listed.split(",") if part.strip()]
    found = [_RANGE.fullmatch(part) for part in parts]
    return bool(parts) and unit.strip().lower() == "bytes" and all(match and _is_forward(match) for match in found)


def _is_forward(match: re.Match[str]) -> bool:
    return not match[2] or int(match[1]) <= int(match[2])


def _refuse_unsatisfiable(start: Message) -> None:
    if start["status"] == 416:
        content_range = Headers(raw=start["headers"])["content-range"]
        detail = f"The recording has {content_range.removeprefix('bytes */')} bytes: nothing is in that range."
        raise HTTPException(416, detail, headers={"Content-Range": content_range})


def _negotiate(accept: str) -> TranscriptFormat:
    """The format that the Accept header likes best (RFC 9110, section 12.5.1), no header meaning `*/*`.

    Raises:
        HTTPException: 406.
    """
    wishes: dict[str, tuple[float, int]] = {}
    for position, part in enumerate((accept.strip(", \t") or "*/*").lower().split(",")):
        media, *parameters = re.sub(r"\s", "", part).split(";")
        quality = next((item.removeprefix("q=") for item in parameters if item.startswith("q=")), "1")
        with suppress(ValueError):
            wishes.setdefault(media, (-float(quality), position))
    ranked = []
    for kind, offered in MEDIA_TYPES.items():
        ranges = (offered, f"{offered.partition('/')[0]}/*", "*/*")  # the most exact one counts
        wish = next((wishes[media] for media in ranges if media in wishes), None)
        if wish and wish[0] < 0:
            ranked.append((wish, kind))
    if not ranked:
        raise HTTPException(406, f"Only {', '.join(MEDIA_TYPES.values())} can be sent.")
    return min(ranked, key=lambda pair: pair[0])[1]


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
