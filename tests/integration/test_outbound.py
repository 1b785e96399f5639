"""The guarded HTTP client against real servers on loopback: what it refuses, and that it cannot be talked round."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Sequence
from ipaddress import ip_network

import pytest
import trustme

from backend.domain.access.addresses import Allowance
from backend.errors import InvalidInput, RemoteUnavailable, TooLarge
from backend.services.remote.client import OutboundClient, RemoteAnswer, Resolver, resolve
from tests.support.web_servers import Received, redirect, reply, web_server

pytestmark = pytest.mark.anyio

LOOPBACK = Allowance(networks=(ip_network("127.0.0.1/32"),))
NOT_PUBLIC = "no host of the public internet"


class Names:
    """A resolver that answers what it is told: per name, one answer after the other, the last one for ever."""

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        answers = self._answers.get(host)
        if answers is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]


async def get(
    client: OutboundClient, url: str, *, max_bytes: int = 1000, stall_timeout_s: float = 5, follow: bool = True
) -> tuple[RemoteAnswer, bytes]:
    async with client.stream(
        "GET", url, max_bytes=max_bytes, stall_timeout_s=stall_timeout_s, follow_redirects=follow
    ) as answer:
        return answer, b"".join([chunk async for chunk in answer.body])


def client(allowance: Allowance = LOOPBACK, resolver: Resolver = resolve) -> OutboundClient:
    return OutboundClient(allowance, resolver=resolver)


async def test_an_allowed_server_is_asked_and_answers() -> None:
    async with web_server(reply(200, b"hello", content_type="text/plain")) as server:
        answer, body = await get(client(), server.url("/a?b=c"))

    assert (answer.status, answer.headers["content-type"], body) == (200, "text/plain", b"hello")
    assert server.requests[0].target == "/a?b=c"
    assert server.requests[0].headers["host"] == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "127.0.0.1.",
        "LOCALHOST",
        "\uff11\uff12\uff17.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "[fe80::1]",
    ],
)
async def test_no_form_of_a_private_address_is_reached(host: str) -> None:
    async with web_server(reply(200, b"secret")) as server:
        with pytest.raises(InvalidInput):
            await get(client(Allowance()), server.url(host=host))

    assert server.requests == []


async def test_a_name_with_a_private_address_is_refused_and_its_address_is_not_told() -> None:
    names = Names(intranet_example=[["10.11.12.13"]])

    with pytest.raises(InvalidInput, match=NOT_PUBLIC) as refused:
        await get(client(resolver=names), "http://intranet.example/")

    assert "10.11" not in str(refused.value)


async def test_an_unknown_name_is_refused_like_a_private_one() -> None:
    names = Names(intranet_example=[["10.11.12.13"]])

    told = []
    for host in ("intranet.example", "nowhere.example"):
        with pytest.raises(InvalidInput) as refused:
            await get(client(resolver=names), f"http://{host}/")
        told.append(str(refused.value).replace(host, ""))

    assert told[0] == told[1]


async def test_a_name_with_one_private_address_among_others_is_refused() -> None:
    async with web_server(reply()) as server:
        names = Names(mixed_example=[["127.0.0.1", "10.0.0.1"]])
        with pytest.raises(InvalidInput, match=NOT_PUBLIC):
            await get(client(resolver=names), server.url(host="mixed.example"))

    assert server.requests == []


async def test_a_name_is_looked_up_once_and_the_connection_goes_to_what_was_judged() -> None:
    async with (
        web_server(reply(200, b"public")) as public,
        web_server(reply(200, b"private"), host="127.0.0.2", port=public.port) as private,
    ):
        names = Names(rebinding_example=[["127.0.0.1"], ["127.0.0.2"]])
        _, body = await get(client(resolver=names), public.url(host="rebinding.example"))

    assert (body, names.asked, private.requests) == (b"public", ["rebinding.example"], [])


async def test_a_name_that_answers_differently_the_second_time_is_judged_again() -> None:
    async with (
        web_server(reply(200, b"public")) as public,
        web_server(reply(200, b"private"), host="127.0.0.2", port=public.port) as private,
    ):
        guarded = client(resolver=Names(rebinding_example=[["127.0.0.1"], ["127.0.0.2"]]))
        await guarded.check(public.url(host="rebinding.example"))
        with pytest.raises(InvalidInput, match=NOT_PUBLIC):
            await get(guarded, public.url(host="rebinding.example"))

    assert (public.requests, private.requests) == ([], [])


async def test_an_address_where_nobody_listens_is_passed_over_for_the_next() -> None:
    async with web_server(reply(200, b"here")) as server:
        allowance = Allowance(names=frozenset({"two.example"}))
        names = Names(two_example=[["127.0.0.2", "127.0.0.1"]])
        _, body = await get(client(allowance, names), server.url(host="two.example"))

    assert body == b"here"


async def test_a_host_allowed_by_name_is_reached_and_its_neighbour_is_not() -> None:
    async with web_server(reply(200, b"n8n")) as server:
        names = Names(n8n=[["127.0.0.1"]], other=[["127.0.0.1"]])
        guarded = client(Allowance(names=frozenset({"n8n"})), names)
        _, body = await get(guarded, server.url(host="n8n"))
        with pytest.raises(InvalidInput, match="OUTBOUND_ALLOW_PRIVATE"):
            await get(guarded, server.url(host="other"))

    assert body == b"n8n"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(status: int) -> None:
    async with web_server(reply(200, b"there")) as there, web_server(redirect(there.url("/x"), status)) as here:
        answer, body = await get(client(), here.url())

    assert (answer.url, body) == (there.url("/x"), b"there")
    assert there.requests[0].headers["host"] == f"127.0.0.1:{there.port}"


async def test_a_relative_redirect_stays_on_the_server() -> None:
    def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        moved = redirect("../b?c=d") if request.target == "/x/a" else reply(200, request.target.encode())
        moved(request, writer)

    async with web_server(answer) as server:
        _, body = await get(client(), server.url("/x/a"))

    assert body == b"/b?c=d"


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.2:{port}/",
        "http://localhost:{port}/",
        "http://[::1]:{port}/",
        "//127.0.0.2:{port}/",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1:{port}/",
        "http://user:secret@127.0.0.1:{port}/",
        "http://127.0.0.1:25/",
    ],
)
async def test_a_redirect_to_a_forbidden_address_is_refused(location: str) -> None:
    async with web_server(reply()) as first, web_server(reply(), host="127.0.0.2", port=first.port) as second:
        first.answer = redirect(location.format(port=first.port))
        with pytest.raises(InvalidInput):
            names = Names(localhost=[["127.0.0.2"]])
            await get(client(resolver=names), first.url())

    assert (len(first.requests), second.requests) == (1, [])


async def test_redirects_in_a_circle_end_after_five() -> None:
    async with web_server(redirect("/again")) as server:
        answer, _ = await get(client(), server.url())

    assert (answer.status, len(server.requests)) == (302, 6)


async def test_redirects_are_not_followed_unless_asked() -> None:
    async with web_server(redirect("/again")) as server:
        answer, _ = await get(client(), server.url(), follow=False)

    assert (answer.status, len(server.requests)) == (302, 1)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://example.org/a.wav", "no http or https URL"),
        ("file:///etc/passwd", "no http or https URL"),
        ("example.org/a.wav", "no http or https URL"),
        ("http:///a.wav", "no http or https URL"),
        ("", "no http or https URL"),
        ("http://user@example.org/", "user name or password"),
        ("http://user:secret@example.org/", "user name or password"),
        ("http://example.org:22/", "Port 22"),
        ("http://example.org:0/", "Port 0"),
        ("http://example.org:99999/", "Port 99999"),
        ("http://exa mple.org/", "no name of a host"),
        ("http://example..org/", "no name of a host"),
        ("http://%31%32%37.0.0.1/", "no name of a host"),
        ("http://" + "a" * 64 + ".example/", "no name of a host"),
        ("http://example.org/\r\nX: y", "no valid URL"),
        ("http://[::1/", "no valid URL"),
        ("http://example.org/" + "a" * 2048, "longer than 2048"),
    ],
)
async def test_what_is_no_usable_url_is_refused_without_a_look_up(url: str, why: str) -> None:
    names = Names()

    with pytest.raises(InvalidInput, match=why):
        await client(resolver=names).check(url)

    assert names.asked == []


async def test_credentials_in_a_url_are_not_repeated() -> None:
    with pytest.raises(InvalidInput) as refused:
        await client().check("http://user:secret@example.org/")

    assert "secret" not in str(refused.value)


async def test_a_name_service_that_does_not_answer_is_no_reason_to_refuse_early() -> None:
    async def busy(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    guarded = client(resolver=busy)
    await guarded.check("http://example.org/")
    with pytest.raises(RemoteUnavailable, match="cannot be looked up"):
        await get(guarded, "http://example.org/")


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with web_server(reply(200, b"direct")) as server, web_server(reply(200, b"proxy")) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        _, body = await get(client(), server.url())

    assert (body, proxy.requests) == (b"direct", [])


async def test_a_body_over_the_limit_is_cut_off() -> None:
    async with web_server(reply(200, b"x" * 1001)) as server:
        with pytest.raises(TooLarge, match="1000 bytes"):
            await get(client(), server.url())


async def test_an_endless_body_without_a_length_is_cut_off() -> None:
    async def endless(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with web_server(endless) as server:
        with pytest.raises(TooLarge):
            await get(client(), server.url(), max_bytes=1_000_000)


async def test_silence_ends_after_the_stall_timeout() -> None:
    async with web_server(lambda request, writer: asyncio.sleep(30)) as server:
        started = time.monotonic()
        with pytest.raises(RemoteUnavailable, match="did not answer in time"):
            await get(client(), server.url(), stall_timeout_s=0.2)

    assert time.monotonic() - started < 3


async def test_a_body_that_breaks_off_is_an_error() -> None:
    async with web_server(reply(200, b"half", content_length="8")) as server:
        with pytest.raises(RemoteUnavailable, match="broke the connection off"):
            await get(client(), server.url())


async def test_nobody_there_is_an_error_that_waiting_may_heal() -> None:
    async with web_server(reply()) as server:
        url = server.url()

    with pytest.raises(RemoteUnavailable, match="could not be reached"):
        await get(client(), url)


async def test_what_speaks_no_http_is_an_error_that_repeats_nothing_of_it() -> None:
    def answer(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2 secret\r\n")

    async with web_server(answer) as server:
        with pytest.raises(RemoteUnavailable) as broken:
            await get(client(), server.url())

    assert "SSH" not in str(broken.value)


async def test_every_connection_is_closed_after_its_answer() -> None:
    closed = asyncio.Event()

    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        reply(200, b"x" * 500)(request, writer)
        await writer.drain()
        reader: asyncio.StreamReader = writer.transport.get_protocol()._stream_reader  # type: ignore[attr-defined]
        await reader.read()
        closed.set()

    async with web_server(answer) as server:
        await get(client(), server.url())
        await asyncio.wait_for(closed.wait(), 5)

    assert server.requests[0].headers["connection"] == "close"


def certified(name: str, seen: list[str | None]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for a server of this name, and for a client that trusts its authority; server names asked for are noted."""
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(serving)
    serving.sni_callback = lambda _socket, asked, _context: seen.append(asked)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trusting)
    return serving, trusting


async def test_tls_checks_the_name_although_the_connection_goes_to_an_address() -> None:
    seen: list[str | None] = []
    serving, trusting = certified("recordings.example", seen)
    names = Names(recordings_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
    guarded = OutboundClient(LOOPBACK, resolver=names, tls=trusting)

    async with web_server(reply(200, b"sealed"), tls=serving) as server:
        _, body = await get(guarded, server.url(host="recordings.example"))
        with pytest.raises(RemoteUnavailable, match="through TLS"):
            await get(guarded, server.url(host="other.example"))

    assert (body, seen) == (b"sealed", ["recordings.example", "other.example"])
    assert server.requests[0].headers["host"] == f"recordings.example:{server.port}"


async def test_a_certificate_of_an_unknown_authority_is_refused() -> None:
    serving, _ = certified("recordings.example", [])
    names = Names(recordings_example=[["127.0.0.1"]])

    async with web_server(reply(), tls=serving) as server:
        with pytest.raises(RemoteUnavailable, match="through TLS"):
            await get(client(resolver=names), server.url(host="recordings.example"))

    assert server.requests == []


async def test_a_name_in_another_script_is_asked_for_in_its_ascii_form() -> None:
    async with web_server(reply(200, b"hi")) as server:
        names = Names(**{"xn--mller-kva_example": [["127.0.0.1"]]})
        _, body = await get(client(resolver=names), server.url(host="müller.example"))

    assert body == b"hi"
