"""The responses that serve a transcript: JSON, text, SRT, VTT, by `Accept` or `format`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from fastapi import Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from backend.api.schemas.transcripts import transcript_of
from backend.database import transcripts
from backend.database.models import Conversation
from backend.domain.filenames import attachment
from backend.domain.formats import to_srt, to_text, to_vtt


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
    return {"Content-Disposition": name}


RENDER: Mapping[TranscriptFormat, Callable[[Conversation], Response]] = {
    TranscriptFormat.JSON: _json,
    TranscriptFormat.TXT: _text(lambda row: to_text(transcripts.read(row)), TranscriptFormat.TXT),
    TranscriptFormat.SRT: _text(lambda row: to_srt(transcripts.read(row)), TranscriptFormat.SRT),
    TranscriptFormat.VTT: _text(lambda row: to_vtt(transcripts.read(row)), TranscriptFormat.VTT),
}
