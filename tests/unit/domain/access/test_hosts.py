"""Names of a server: what a Host header may be, and which of them are ours."""

from __future__ import annotations

import pytest

from backend.domain.access.hosts import Host, OwnNames, parse_host, parse_names, parse_prefix


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("localhost", Host("localhost", None, False)),
        ("LocalHost.:8000", Host("localhost", 8000, False)),
        ("127.0.0.1", Host("127.0.0.1", None, True)),
        ("127.0.0.1:80", Host("127.0.0.1", 80, True)),
        ("[::1]", Host("::1", None, True)),
        ("[2001:DB8:0::1]:443", Host("2001:db8::1", 443, True)),
        ("Aperta.Example.ORG:8443", Host("aperta.example.org", 8443, False)),
        ("my_host", Host("my_host", None, False)),
        ("127.0.0.1.nip.io", Host("127.0.0.1.nip.io", None, False)),
        ("2130706433", Host("2130706433", None, False)),
        ("0177.0.0.1", Host("0177.0.0.1", None, False)),
        ("0x7f.1", Host("0x7f.1", None, False)),
        ("127.1", Host("127.1", None, False)),
    ],
)
def test_a_host_is_read(text: str, host: Host) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":8000",
        "localhost:",
        "localhost:http",
        "localhost:99999",
        "localhost:80:80",
        "localhost..",
        "::1",
        "[::1",
        "[::1]x",
        "[127.0.0.1]",
        "[::1%25eth0]",
        "[]",
        "user@localhost",
        "localhost@evil.example",
        "localhost/evil",
        "localhost evil",
        "localhost, evil.example",
        "b\xfccher.example",
        "http://localhost",
        "*.example.org",
    ],
)
def test_anything_else_is_no_host(text: str) -> None:
    with pytest.raises(ValueError):
        parse_host(text)


@pytest.mark.parametrize("text", ["localhost", "localhost:9", "127.0.0.1", "10.0.0.7:80", "[::1]", "[fe80::1]:8000"])
def test_localhost_and_addresses_are_always_ours(text: str) -> None:
    assert OwnNames().permits(parse_host(text))


@pytest.mark.parametrize(
    "text",
    ["evil.example", "localhost.evil", "evil.localhost", "127.0.0.1.nip.io", "2130706433", "0177.0.0.1", "0x7f000001"],
)
def test_other_names_are_not(text: str) -> None:
    assert not OwnNames().permits(parse_host(text))


@pytest.mark.parametrize(
    ("listed", "host", "ours"),
    [
        ("aperta.example.org", "APERTA.example.org.", True),
        ("aperta.example.org", "aperta.example.org:8443", True),
        ("aperta.example.org", "other.example.org", False),
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "a.b.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", "evilexample.org", False),
        (" a.example , b.example ", "b.example", True),
        ("*", "any.example", True),
    ],
)
def test_listed_names_are_ours(listed: str, host: str, ours: bool) -> None:
    assert parse_names(listed).permits(parse_host(host)) is ours


@pytest.mark.parametrize("text", ["https://a.example", "a.example:80", "*example.org", "a.*.org", "**", "a b", "*."])
def test_what_is_no_name_cannot_be_listed(text: str) -> None:
    with pytest.raises(ValueError):
        parse_names(text)


def test_the_name_to_listen_on_is_ours() -> None:
    assert OwnNames().also("Aperta.lan").permits(parse_host("aperta.lan"))
    assert OwnNames().also("0.0.0.0") == OwnNames().also("::") == OwnNames()


@pytest.mark.parametrize(("text", "prefix"), [("", ""), ("/", ""), ("/aperta", "/aperta"), ("/a/b.c/", "/a/b.c")])
def test_a_prefix_is_read(text: str, prefix: str) -> None:
    assert parse_prefix(text) == prefix


@pytest.mark.parametrize(
    "text",
    ["aperta", "//evil.example", "/a//b", "/..", "/a/../b", "/a/.", "/a b", "/a?b", "http://a/", "/\\evil", "/%2f"],
)
def test_a_prefix_cannot_lead_elsewhere(text: str) -> None:
    with pytest.raises(ValueError):
        parse_prefix(text)
