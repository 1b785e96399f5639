"""A recording from a URL, as it arrives. Who may be asked is decided by `outbound.py`."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from email.message import Message
from urllib.parse import unquote, urlsplit

import anyio

from backend.domain.filenames import safe_filename
from backend.errors import InvalidInput, RemoteUnavailable, TooLarge
from backend.services.remote.client import MAX_REDIRECTS, REDIRECTS, OutboundClient, RemoteAnswer

BUSY = (408, 425, 429)
"""Client errors that waiting may heal."""

MAX_DISPOSITION_CHARS = 4096


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A recording that is arriving.

    `filename` is safe for paths and never empty; `content_type` is the server's word if that is an audio or video type;
    `size_bytes` is what the server announced, if anything. `chunks` can be read once, and only while the file is open.
    """

    filename: str
    content_type: str | None
    size_bytes: int | None
    chunks: AsyncIterator[bytes]


class Fetcher:
    """
    Args:
        enabled: INGEST_FROM_URL. Without it every URL is refused.
        max_bytes: largest recording.
        stall_timeout_s: longest wait for the next bytes.
        timeout_s: longest time for all of it.
    """

    def __init__(
        self,
        client: OutboundClient,
        *,
        enabled: bool,
        max_bytes: int,
        stall_timeout_s: float,
        timeout_s: float,
    ) -> None:
        self._client = client
        self._enabled = enabled
        self._max_bytes = max_bytes
        self._stall_timeout_s = stall_timeout_s
        self._timeout_s = timeout_s

    async def check(self, url: str) -> None:
        """Refuse early what `open` would refuse, without contacting the server.

        Raises:
            InvalidInput: URLs are off, or this one may not be fetched.
        """
        if not self._enabled:
            raise InvalidInput("Recordings from URLs are off (INGEST_FROM_URL=off). Send the file itself.")
        await self._client.check(url)

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[RemoteFile]:
        """Ask for a recording and hand it over while it arrives.

        Raises:
            InvalidInput: URLs are off, this one may not be fetched, or it has no recording (4xx).
            RemoteUnavailable: the server does not answer, fails (5xx), stalls or breaks off; `chunks` raise this too.
            TooLarge: more than MAX_UPLOAD_BYTES; raised at once if the server says so, else by `chunks`.
        """
        await self.check(url)
        deadline = anyio.current_time() + self._timeout_s
        async with AsyncExitStack() as stack:
            with self._deadline(deadline):
                answer = await stack.enter_async_context(self._ask(url))
            _check_status(answer)
            size_bytes = self._announced_size(answer)
            chunks = await stack.enter_async_context(aclosing(self._chunks(answer, deadline)))
            yield RemoteFile(_filename(answer), _content_type(answer), size_bytes, chunks)

    def _ask(self, url: str) -> AbstractAsyncContextManager[RemoteAnswer]:
        return self._client.stream(
            "GET",
            url,
            headers={"Accept": "audio/*, video/*, */*;q=0.5", "Accept-Encoding": "identity"},
            max_bytes=self._max_bytes,
            stall_timeout_s=self._stall_timeout_s,
            follow_redirects=True,
        )

    async def _chunks(self, answer: RemoteAnswer, deadline: float) -> AsyncGenerator[bytes, None]:
        body = aiter(answer.body)
        while True:
            with self._deadline(deadline):
                chunk = await anext(body, None)
            if chunk is None:
                return
            yield chunk

    @contextmanager
    def _deadline(self, at: float) -> Iterator[None]:
        try:
            with anyio.fail_after(max(0, at - anyio.current_time())):
                yield
        except TimeoutError as error:
            raise RemoteUnavailable(
                f"The recording had not arrived after {self._timeout_s:g} s. Send the file itself, or raise "
                "INGEST_TIMEOUT_S."
            ) from error

    def _announced_size(self, answer: RemoteAnswer) -> int | None:
        length = answer.headers.get("content-length", "")
        if not length.isdecimal():
            return None
        if int(length) > self._max_bytes:
            raise TooLarge(
                f"The recording is larger than the {self._max_bytes} bytes allowed. Give a smaller one, or raise "
                "MAX_UPLOAD_BYTES."
            )
        return int(length)


def _check_status(answer: RemoteAnswer) -> None:
    host = urlsplit(answer.url).hostname
    if answer.status == 200:
        if (coding := answer.headers.get("content-encoding", "identity").lower()) != "identity":
            raise InvalidInput(f"{host} sends the recording packed ({coding[:20]}), unasked. Send the file itself.")
        return
    if answer.status in REDIRECTS:
        raise InvalidInput(f"The URL redirects more than {MAX_REDIRECTS} times. Give the final address.")
    if answer.status >= 500 or answer.status in BUSY:
        raise RemoteUnavailable(f"{host} answered {answer.phrase}. Try again later.")
    raise InvalidInput(f"{host} answered {answer.phrase} and no recording. Check that the URL works without a log-in.")


def _filename(answer: RemoteAnswer) -> str:
    named = disposition_filename(answer.headers.get("content-disposition", ""))
    return safe_filename(named or unquote(urlsplit(answer.url).path.rsplit("/", 1)[-1]))


def disposition_filename(disposition: str) -> str | None:
    """The file name of a Content-Disposition (RFC 6266); the encoded form, `filename*` (RFC 5987), goes first."""
    header = Message()
    header["Content-Disposition"] = disposition[:MAX_DISPOSITION_CHARS]
    names = [value for key, value in header.get_params([], "content-disposition") if key.lower() == "filename"]
    for name in names:
        if isinstance(name, tuple):  # charset, language, percent-decoded bytes as latin-1
            return _decoded(name[2], name[0] or "utf-8")
    return next(iter(names), None)


def _decoded(text: str, charset: str) -> str:
    try:
        return text.encode("latin-1").decode(charset, "replace")
    except (LookupError, UnicodeError):
        return text


def _content_type(answer: RemoteAnswer) -> str | None:
    media = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media if re.fullmatch(r"(audio|video)/[a-z0-9.+-]{1,100}", media) else None
