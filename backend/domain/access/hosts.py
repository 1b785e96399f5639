"""What a server is called: the `Host` of a request, the names it is held against, the prefix of paths.

Pure: resolves nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from backend.domain.access.addresses import find_address, is_host

_ADDRESS_6 = re.compile(r"\[([0-9A-Fa-f:.]+)\]")
_PORT = re.compile(r"[0-9]{1,5}")
_PREFIX = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")
MAX_PORT = 65535
ANY = "*"
SUBDOMAINS = "*."
ALWAYS = frozenset({"localhost"})


@dataclass(frozen=True, slots=True)
class Host:
    """A host and maybe a port, as `Host` and `Origin` write them. A name is in lower case, without a dot at its end."""

    name: str
    port: int | None
    is_address: bool


@dataclass(frozen=True, slots=True)
class OwnNames:
    """Which hosts are this server: `localhost` and every address, single names, and names below others.

    A web page cannot make its browser take another machine's name for an address, so addresses need no list.
    """

    names: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()
    takes_any: bool = False

    def permits(self, host: Host) -> bool:
        """Whether a request for this host is meant for this server."""
        if self.takes_any or host.is_address or host.name in ALWAYS or host.name in self.names:
            return True
        return host.name.endswith(self.suffixes)

    def also(self, text: str) -> OwnNames:
        """The same names and one more, if that is a name and not an address."""
        name = text.lower().removesuffix(".")
        return replace(self, names=self.names | {name}) if is_host(name) and not find_address(name) else self


def parse_host(text: str) -> Host:
    """Read `name`, `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.

    Raises:
        ValueError: it is something else.
    """
    name, port = _split(text)
    if (literal := _ADDRESS_6.fullmatch(name)) and ":" in literal[1] and (address := find_address(literal[1])):
        return Host(str(address), port, is_address=True)
    if ":" in name or not is_host(name):
        raise ValueError(f"{text[:80]!r} is not a host name or address")
    if find_address(name):
        return Host(name, port, is_address=True)
    return Host(name.lower().removesuffix("."), port, is_address=False)


def parse_names(text: str) -> OwnNames:
    """Read names separated by commas: `aperta.example.org`, `*.example.org` for those below it, `*` for any.

    Raises:
        ValueError: an entry is something else.
    """
    entries = [entry for entry in (part.strip() for part in text.split(",")) if entry]
    below = [entry for entry in entries if entry.startswith(SUBDOMAINS)]
    names = [entry for entry in entries if entry != ANY and entry not in below]
    return OwnNames(
        frozenset(_name(entry) for entry in names),
        tuple(f".{_name(entry.removeprefix(SUBDOMAINS))}" for entry in below),
        ANY in entries,
    )


def parse_prefix(text: str) -> str:
    """Read a path prefix: `/aperta`, `/tools/aperta/`; empty and `/` mean none.

    Raises:
        ValueError: it is not a path, or could be taken for another server (`//elsewhere.example`).
    """
    prefix = text.strip().removesuffix("/")
    if not _PREFIX.fullmatch(prefix):
        raise ValueError("write a path such as /aperta: segments of letters, digits and -._~, each after one slash")
    return prefix


def _name(entry: str) -> str:
    host = parse_host(entry)
    if host.port is not None:
        raise ValueError(f"{entry[:80]!r} has a port; write the name alone")
    return host.name


def _split(text: str) -> tuple[str, int | None]:
    name, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text, None
    if not _PORT.fullmatch(port) or int(port) > MAX_PORT:
        raise ValueError(f"{text[:80]!r} has no valid port")
    return name, int(port)
