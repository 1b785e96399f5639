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

from backend.api.schemas.transcripts import TranscriptOut
from backend.domain.filenames import attachment
from backend.domain.rendering.formats import to_srt, to_text, to_vtt
from backend.domain.transcript import Transcript
from backend.services.conversations.views import DetailedConversation


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
"""In order of preference where the client has none."""


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


def _text(render: Callable[[Transcript], str], kind: TranscriptFormat) -> Callable[[DetailedConversation], Response]:
    def response(found: DetailedConversation) -> Response:
        text = render(found.transcript or Transcript())
        return PlainTextResponse(text, media_type=MEDIA_TYPES[kind], headers=_download_headers(found, kind))

    return response


def _json(found: DetailedConversation) -> Response:
    shown = TranscriptOut.from_transcript(found.transcript or Transcript(), found.participants)
    return JSONResponse(shown.model_dump(mode="json"), headers=_download_headers(found, TranscriptFormat.JSON))


def _download_headers(found: DetailedConversation, kind: TranscriptFormat) -> dict[str, str]:
    name = attachment(f"{Path(found.filename).stem}.{kind}").replace("attachment", "inline", 1)
    return {"Content-Disposition": name}


RENDER: Mapping[TranscriptFormat, Callable[[DetailedConversation], Response]] = {
    TranscriptFormat.JSON: _json,
    TranscriptFormat.TXT: _text(to_text, TranscriptFormat.TXT),
    TranscriptFormat.SRT: _text(to_srt, TranscriptFormat.SRT),
    TranscriptFormat.VTT: _text(to_vtt, TranscriptFormat.VTT),
}
