"""A multipart/form-data body as it arrives: the file as a stream of bytes, the other fields as text.

Starlette's own form parser writes a file to a temporary folder first and again to its place afterwards; here the reader
of `file_chunks` gets the bytes directly.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Collection, Sequence

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request

from backend.api.requests.stream import body_of
from backend.domain.filenames import safe_filename
from backend.services.remote.download import disposition_filename

MAX_FIELD_BYTES = 64 * 1024
MAX_HEADER_BYTES = 16 * 1024
"""Of one part. The parser's own limit would refuse file names of 4 KB, which are cut instead."""
MAX_PARTS = 100
MAX_SHOWN_NAME_CHARS = 100
FRAMING_BYTES = 1024 * 1024
"""What boundaries, part headers and text fields may add to the file."""


class MultipartUpload:
    """One file part and any number of text fields, in any order.

    Args:
        request: a request whose body has not been read.
        file_fields: names that the file part may have, the documented one first.
        text_fields: names of the fields that are text, and are so even if they come as a text file. A file in any other
            field is refused.
        max_bytes: largest file.

    Attributes:
        fields: the text fields, complete once the body was read.
        filename: None if the form has no file.
        content_type: the file's, if it is an audio or video type.
        size_bytes: the length of the whole body, if the client announced it.

    Raises:
        HTTPException: 415 if the body is not multipart/form-data, 400 without a boundary, 413 if its length already
            says that it is too large.
    """

    def __init__(
        self, request: Request, *, file_fields: Sequence[str], text_fields: Collection[str] = (), max_bytes: int
    ) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.content_type: str | None = None
        self.size_bytes = int(request.headers.get("content-length") or 0) or None
        self._request = request
        self._file_fields = file_fields
        self._text_fields = text_fields
        self._max_bytes = max_bytes
        self._parser = _parser(request, self)
        self._check_length(self.size_bytes or 0)
        self._chunks: list[bytes] = []
        self._header_name = b""
        self._header_value = b""
        self._headers: dict[bytes, bytes] = {}
        self._field_name = ""
        self._field = bytearray()
        self._field_bytes = 0
        self._parts = 0
        self._in_file = False
        self._complete = False

    async def file_chunks(self) -> AsyncGenerator[bytes, None]:
        """The file's bytes. Once exhausted, the whole body was read and `fields` is complete.

        Raises:
            HTTPException: 400 for a malformed or cut-off body, 408 if the client stalls, 413 if it is too large.
        """
        received = 0
        async for data in body_of(self._request):
            received += len(data)
            self._check_length(received)
            try:
                self._parser.write(data)
            except FormParserError as error:
                raise HTTPException(400, f"The multipart body is malformed: {error}") from error
            for chunk in self._chunks:
                yield chunk
            self._chunks.clear()
        if not self._complete:
            raise HTTPException(400, "The multipart body ends before its last boundary: the upload was cut off.")

    def _check_length(self, length: int) -> None:
        if length > self._max_bytes + FRAMING_BYTES:
            raise HTTPException(
                413,
                f"The upload is larger than the {self._max_bytes} bytes allowed. "
                "Send a smaller file, or raise MAX_UPLOAD_BYTES.",
            )

    # The parser calls these while it reads.

    def on_part_begin(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise HTTPException(413, f"The form has more than {MAX_PARTS} fields.")
        self._headers = {}
        self._in_file = False

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def on_headers_finished(self) -> None:
        header = self._headers.get(b"content-disposition", b"")
        _, options = parse_options_header(header)
        self._field_name = options.get(b"name", b"").decode("utf-8", "replace")
        self._field = bytearray()
        claimed = self._headers.get(b"content-type", b"").decode("latin-1")
        filename = _filename(header, options)
        if not filename and valid_media_type(claimed):
            filename = "recording"
        if self._field_name in self._file_fields:
            self._begin_file(filename, claimed)
        elif filename and not (self._field_name in self._text_fields and claimed.lower().startswith("text/")):
            raise HTTPException(422, self._misplaced())

    def _begin_file(self, filename: str | None, claimed: str) -> None:
        if filename is None:
            raise HTTPException(
                422, f"The field '{self._field_name}' is text, not a file. With curl: -F \"file=@meeting.wav\""
            )
        if self.filename is not None:
            raise HTTPException(422, "More than one file was sent. Send one recording per request.")
        self._in_file = True
        self.filename = safe_filename(filename)
        self.content_type = valid_media_type(claimed)

    def _misplaced(self) -> str:
        name, wanted = self._field_name[:MAX_SHOWN_NAME_CHARS], self._file_fields[0]
        return (
            f"The field '{name}' takes no file. Send the recording as '{wanted}'. "
            f'With curl: -F "{wanted}=@meeting.wav"'
        )

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._chunks.append(data[start:end])
            return
        self._field += data[start:end]
        self._field_bytes += end - start
        if self._field_bytes > FRAMING_BYTES:
            raise HTTPException(413, f"The form's text fields are longer than {FRAMING_BYTES} bytes together.")
        if len(self._field) > MAX_FIELD_BYTES:
            raise HTTPException(413, f"The form field '{self._field_name}' is longer than {MAX_FIELD_BYTES} bytes.")

    def on_part_end(self) -> None:
        if not self._in_file:
            self.fields[self._field_name] = self._field.decode("utf-8", "replace")

    def on_end(self) -> None:
        self._complete = True


def _parser(request: Request, upload: MultipartUpload) -> MultipartParser:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise HTTPException(415, 'Send the recording as multipart/form-data. With curl: -F "file=@meeting.wav"')
    if not options.get(b"boundary"):
        raise HTTPException(400, "The Content-Type header names no multipart boundary.")
    names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end", "headers_finished")
    callbacks = {f"on_{name}": getattr(upload, f"on_{name}") for name in (*names, "end")}
    try:
        return MultipartParser(options[b"boundary"], callbacks, max_header_size=MAX_HEADER_BYTES)  # type: ignore[arg-type]
    except FormParserError as error:
        raise HTTPException(400, f"The multipart boundary cannot be used: {error}") from error


def valid_media_type(claimed: str) -> str | None:
    """A client's audio or video type; anything else (curl says octet-stream for flac) is better guessed later."""
    media = claimed.partition(";")[0].strip().lower()
    return media if re.fullmatch(r"(audio|video)/[a-z0-9.+-]{1,100}", media) else None


def _filename(header: bytes, options: dict[bytes, bytes]) -> str | None:
    """The part's file name; None: it is text. Some clients send only the form that RFC 7578 forbids, `filename*`."""
    if b"filename" in options:
        return options[b"filename"].decode("utf-8", "replace")
    return disposition_filename(header.decode("latin-1")) if b"filename*" in header.lower() else None
