"""Who is at the other end of a connection."""

from __future__ import annotations

import ipaddress


class TrustedPeers:
    """The proxies of FORWARDED_ALLOW_IPS: addresses and networks, or `*`."""

    def __init__(self, text: str | list[str]) -> None:
        entries = [entry.strip() for entry in (text.split(",") if isinstance(text, str) else text)]
        self._all = "*" in entries
        self._networks = [network for entry in entries if (network := _find_network(entry)) is not None]

    def __contains__(self, host: str) -> bool:
        if self._all:
            return True
        network = _find_network(host)
        return network is not None and any(network.network_address in known for known in self._networks)


def peer_name(host: str) -> str:
    """One name for all addresses of a peer: of IPv6 it usually has a whole /64 network."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if (mapped := address.ipv4_mapped) is not None:
            return str(mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _find_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
