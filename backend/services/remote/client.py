"""The one HTTP client for addresses that users give. It reaches the public internet, and nothing behind it.

The guard is where connections are made: a name is resolved once, every address it has is judged, and the socket is
opened to one of these addresses. So a name cannot answer differently after it was judged (DNS rebinding), and redirects
are judged like any other request. TLS and the Host header keep the name.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus

import anyio
import httpcore2
import httpx2

from backend import __version__
from backend.concurrency.lanes import ThreadLane
from backend.domain.access.addresses import Allowance, find_address, is_host
from backend.errors import InvalidInput, RemoteUnavailable, TooLarge

MAX_REDIRECTS = 5
MAX_URL_CHARS = 2048
CONNECT_TIMEOUT_S = 10.0
OPEN_PORTS = frozenset({80, 443, *range(1024, 65536)})
"""Below 1024 nothing else speaks HTTP."""

REDIRECTS = (301, 302, 303, 307, 308)

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port → addresses; raises OSError as getaddrinfo does."""

_lookups = ThreadLane("outbound name lookups", 8)


@dataclass(frozen=True, slots=True)
class RemoteAnswer:
    """The head of an answer, and its body while it arrives. Header names are in lower case.

    `url` is the address that answered, after redirects.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    body: AsyncIterator[bytes]

    @property
    def phrase(self) -> str:
        """As in "404 Not Found"; the server's own words are not repeated."""
        known = {status.value: status.phrase for status in HTTPStatus}
        return f"{self.status} {known.get(self.status, '')}".strip()


async def resolve(host: str, port: int) -> Sequence[str]:
    """Every address of a host, by the system's resolver, in its order of preference.

    Raises:
        OSError: the host has no address, or the name service does not answer.
    """
    found = await _lookups.run_or_leave(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class OutboundClient:
    """
    Args:
        allowance: what may be reached although it is not public.
        resolver: looks names up.
        tls: default: the system's certificate authorities.
    """

    def __init__(
        self, allowance: Allowance | None = None, *, resolver: Resolver = resolve, tls: ssl.SSLContext | None = None
    ) -> None:
        self._gate = _Gate(allowance or Allowance(), resolver)
        self._tls = tls or httpcore2.default_ssl_context()

    async def check(self, url: str) -> None:
        """Refuse early what `stream` would refuse, without connecting.

        Raises:
            InvalidInput: no http(s) address, or one that may not be reached.
        """
        parsed = parse_url(url)
        with suppress(RemoteUnavailable), anyio.move_on_after(CONNECT_TIMEOUT_S):
            await self._gate.addresses(parsed.raw_host.decode("ascii"), _port(parsed))

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        max_bytes: int,
        stall_timeout_s: float,
        follow_redirects: bool = False,
    ) -> AsyncIterator[RemoteAnswer]:
        """Send a request and hand over the answer as it arrives.

        Args:
            max_bytes: largest body that is read.
            stall_timeout_s: longest wait for the next bytes. The caller bounds the time of the whole.
            follow_redirects: up to five times; only for requests without content.

        Raises:
            InvalidInput: an address that may not be reached. A sixth redirect is returned.
            RemoteUnavailable: the host does not answer, or the connection broke; the body may raise this too.
            TooLarge: the body is larger than `max_bytes`; raised by the body.
        """
        sent = {"User-Agent": f"Aperta/{__version__}", "Connection": "close", **(headers or {})}
        async with AsyncExitStack() as stack:
            target = parse_url(url)
            response = await self._send(stack, _request(method, target, sent, content, stall_timeout_s))
            for _ in range(MAX_REDIRECTS if follow_redirects else 0):
                location = _headers(response).get("location")
                if response.status not in REDIRECTS or location is None:
                    break
                await stack.aclose()
                target = parse_url(location, base=target)
                response = await self._send(stack, _request(method, target, sent, content, stall_timeout_s))
            body = await stack.enter_async_context(aclosing(_body(response, target.host, max_bytes)))
            yield RemoteAnswer(str(target), response.status, _headers(response), body)

    async def _send(self, stack: AsyncExitStack, request: httpcore2.Request) -> httpcore2.Response:
        """Send one request on a new connection: an address checked for one request is never reused for another."""
        connection = httpcore2.AsyncHTTPConnection(
            request.url.origin, ssl_context=self._tls, network_backend=self._gate
        )
        stack.push_async_callback(connection.aclose)
        with _translated(request.url.host.decode("ascii")):
            return await connection.handle_async_request(request)


class _Gate(httpcore2.AsyncNetworkBackend):
    """Opens every connection, and only to addresses that were judged."""

    def __init__(self, allowance: Allowance, resolver: Resolver) -> None:
        self._allowance = allowance
        self._resolver = resolver
        self._network = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the library's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        failed: Exception = httpcore2.ConnectError("no address")
        try:
            with anyio.fail_after(timeout):
                addresses = await self.addresses(host, port)
                # An address that does not answer must not use up the time of the others.
                share_s = timeout and timeout / len(addresses)
                for address in addresses:
                    try:
                        return await self._network.connect_tcp(address, port, share_s, local_address, socket_options)
                    except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                        failed = error
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout from error
        raise failed

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """Every address of a host, none of which is forbidden.

        Raises:
            InvalidInput: it has none, or a forbidden one. Which of the two stays untold: it would say what names the
                own network knows.
            RemoteUnavailable: the name service does not answer.
        """
        given = find_address(host)
        try:
            found = [str(given)] if given else await self._resolver(host, port)
        except UnicodeError as error:  # no name at all, such as one with a part of 64 letters
            raise _not_public(host) from error
        except OSError as error:
            if isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN:
                raise _not_public(host) from error
            raise RemoteUnavailable(f"The address of {host} cannot be looked up now. Try again later.") from error
        judged = [find_address(address) for address in found]
        if not judged or not all(address and self._allowance.permits(host, address) for address in judged):
            raise _not_public(host)
        return found


def parse_url(url: str, base: httpx2.URL | None = None) -> httpx2.URL:
    """Read a URL that a user gave, or where a redirect leads from `base`; looks nothing up.

    Raises:
        InvalidInput: not http(s), or with credentials, or to a port where no web server should be.
    """
    try:
        parsed = base.join(url) if base else httpx2.URL(url)
        host = parsed.raw_host.decode("ascii")
    except (httpx2.InvalidURL, UnicodeError, ValueError) as error:
        raise InvalidInput("The address is no valid URL. Write it as https://example.org/path.") from error
    if len(url) > MAX_URL_CHARS:
        raise InvalidInput(f"The URL is longer than {MAX_URL_CHARS} characters. Give a shorter one.")
    if parsed.scheme not in ("http", "https") or not host:
        raise InvalidInput("The address is no http or https URL. Write it as https://example.org/path.")
    if not is_host(host):
        raise InvalidInput(f"{host[:80]!r} is no name of a host. Write the URL as https://example.org/path.")
    if parsed.userinfo:
        raise InvalidInput(
            "The URL holds a user name or password, which would end in logs. Give one that works without."
        )
    if _port(parsed) not in OPEN_PORTS:
        raise InvalidInput(f"Port {parsed.port} is closed here. Use 80, 443, or one from 1024 to 65535.")
    return parsed


def _port(url: httpx2.URL) -> int:
    return url.port if url.port is not None else 443 if url.scheme == "https" else 80


def _not_public(host: str) -> InvalidInput:
    return InvalidInput(
        f"{host} is no host of the public internet. Check the URL; a host of your own network must be named in "
        "OUTBOUND_ALLOW_PRIVATE."
    )


def _request(
    method: str, url: httpx2.URL, headers: Mapping[str, str], content: bytes | None, stall_timeout_s: float
) -> httpcore2.Request:
    length = {} if content is None else {"Content-Length": str(len(content))}
    return httpcore2.Request(
        method,
        httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=[("Host", url.netloc.decode("ascii")), *headers.items(), *length.items()],
        content=content,
        extensions={
            "timeout": {"connect": CONNECT_TIMEOUT_S, "read": stall_timeout_s, "write": stall_timeout_s, "pool": None}
        },
    )


def _headers(response: httpcore2.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("utf-8", "replace") for name, value in response.headers}


async def _body(response: httpcore2.Response, host: str, max_bytes: int) -> AsyncGenerator[bytes, None]:
    received = 0
    async with aclosing(response.aiter_stream()) as chunks:
        with _translated(host):
            async for chunk in chunks:
                received += len(chunk)
                if received > max_bytes:
                    raise TooLarge(f"{host} sends more than the {max_bytes} bytes allowed. Give a smaller file.")
                yield chunk


@contextmanager
def _translated(host: str) -> Iterator[None]:
    """The library's errors as ours, without a word of what the other side said.

    Raises:
        RemoteUnavailable
    """
    try:
        yield
    except httpcore2.TimeoutException as error:
        raise RemoteUnavailable(f"{host} did not answer in time. Try again later.") from error
    except httpcore2.ConnectError as error:
        raise RemoteUnavailable(f"{host} could not be reached{_tls_trouble(error)}. Check the URL.") from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
        raise RemoteUnavailable(f"{host} broke the connection off. Try again later.") from error


def _tls_trouble(error: BaseException | None) -> str:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return f" through TLS ({getattr(error, 'verify_message', '') or error.reason or 'handshake failed'})"
        error = error.__cause__
    return ""
