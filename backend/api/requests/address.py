"""The address of this server as the client sees it: scheme, host, path prefix. Every link to this server is made here.

A proxy that is trusted says by X-Forwarded-Host and X-Forwarded-Prefix what the client asked for; `settle_address` puts
both where Starlette looks for them (the `Host` header and `root_path`), so that nothing else reads these headers.
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Scope

from backend.domain.access.hosts import Host, OwnNames, parse_host, parse_prefix

DEFAULT_PORTS = {"http": 80, "https": 443}


def settle_address(scope: Scope, names: OwnNames, prefix: str, *, is_forwarded: bool) -> None:
    """Find out what the client calls this server, and put that into the scope.

    Args:
        scope: a request, as it came.
        names: what this server may be called.
        prefix: in front of its paths, unless the proxy names another one; empty: that of the ASGI server.
        is_forwarded: the request comes from a trusted proxy.

    Raises:
        HTTPException: 400 if it cannot be told; 421 if it is another server's name.
    """
    headers = Headers(scope=scope)
    hosts = headers.getlist("host")
    if len(hosts) != 1:
        raise HTTPException(400, f"There are {len(hosts)} Host headers; send exactly one.")
    _check(_parsed("Host", hosts[0]), names)
    if is_forwarded and (host := _last(headers, "x-forwarded-host")):
        _check(_parsed("X-Forwarded-Host", host), names)
        others = [header for header in scope["headers"] if header[0] != b"host"]
        scope["headers"] = [(b"host", host.encode("latin-1")), *others]
    if is_forwarded and (given := _last(headers, "x-forwarded-prefix")):
        try:
            prefix = parse_prefix(given)
        except ValueError as error:
            raise HTTPException(400, f"X-Forwarded-Prefix: {error}") from error
    _set_prefix(scope, prefix or scope.get("root_path", ""))


def route_path(scope: Scope) -> str:
    """The path of a request below the prefix, as routes are declared."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def own_path(scope: Scope, path: str) -> str:
    """The path under which the client of this request reaches a route of this server, for `Location`."""
    prefix: str = scope.get("root_path", "")
    return prefix + path


def is_own_origin(scope: Scope, origin: str) -> bool:
    """Whether a page with this `Origin` came from this server, as far as the request shows.

    A proxy may speak TLS and say nothing of it, so `https` is taken where `http` arrives, and not the other way round.
    """
    scheme, _, authority = origin.partition("://")
    if scheme not in DEFAULT_PORTS or (scope["scheme"] == "https" and scheme != "https"):
        return False
    try:
        page, own = parse_host(authority), parse_host(Headers(scope=scope).get("host", ""))
    except ValueError:
        return False
    return (page.name, page.port or DEFAULT_PORTS[scheme]) == (own.name, own.port or DEFAULT_PORTS[scheme])


def _parsed(header: str, text: str) -> Host:
    try:
        return parse_host(text)
    except ValueError as error:
        raise HTTPException(400, f"{header}: {error}.") from error


def _check(host: Host, names: OwnNames) -> None:
    if not names.permits(host):
        raise HTTPException(
            421,
            f"This server is not known as {host.name}. If it should be, add that name to ALLOWED_HOSTS; "
            "localhost and IP addresses always work.",
        )


def _last(headers: Headers, name: str) -> str:
    """What the nearest proxy wrote: each appends to what it was given, and a client may have begun the list."""
    return ",".join(headers.getlist(name)).rpartition(",")[2].strip()


def _set_prefix(scope: Scope, prefix: str) -> None:
    """Proxies take the prefix off or leave it; routes are found either way."""
    scope["root_path"] = prefix
    path: str = scope["path"]
    if prefix and path != prefix and not path.startswith(f"{prefix}/"):
        scope["path"] = prefix + path
        scope["raw_path"] = prefix.encode() + (scope.get("raw_path") or quote(path).encode())
