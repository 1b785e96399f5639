"""Which network addresses may be reached on behalf of a user. Pure: resolves nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Named here and not asked of `is_global`, whose answers differ between Python's patch versions and which takes 6to4,
# IPv4-mapped and site-local addresses for global ones. From IANA's special-purpose registries (RFC 6890).
_CLOSED_IPV4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata service
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's virtual machine agent, at an address that looks public
        "169.254.0.0/16",  # link-local; metadata services of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata service
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # outside: loopback, link-local, unique local, IPv4-mapped, multicast …
_CLOSED_IPV6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, with Teredo
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",
    )
)
_NAT64 = IPv6Network("64:ff9b::/96")
_HOST_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_][a-z0-9_-]{0,62}(\.[a-z0-9_][a-z0-9_-]{0,62})*\.?", re.IGNORECASE)


def is_public(address: Address) -> bool:
    """Whether this is an ordinary unicast address of the public internet.

    An IPv4 address in the well-known NAT64 prefix, as networks without IPv4 see all of them, is judged by itself; every
    other form with an IPv4 address inside (mapped, 6to4, Teredo) is refused.
    """
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_IPV4)
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _GLOBAL_UNICAST and not any(address in network for network in _CLOSED_IPV6)


def find_address(host: str) -> Address | None:
    """The address that a host name is, if it is one."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def is_loopback(address: Address) -> bool:
    """Whether only this machine reaches it, also where IPv6 writes an IPv4 address."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def is_host(text: str) -> bool:
    """Whether this is an address, or a name in the ASCII form that name services know."""
    return find_address(text) is not None or _HOST_NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be reached although it is not public: hosts by name, and networks."""

    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    def permits(self, host: str, address: Address) -> bool:
        """Whether the host may be reached at the address."""
        return is_public(address) or host.lower() in self.names or any(address in item for item in self.networks)


def parse_allowance(text: str) -> Allowance:
    """Read a comma-separated list of host names, addresses and networks (`n8n, 10.1.0.0/16`).

    Raises:
        ValueError: an entry is not one of these.
    """
    names, networks = set(), []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ip_network(entry))
        except ValueError:
            if not is_host(entry):
                raise ValueError(f"{entry!r} is no host name and no network such as 10.1.0.0/16") from None
            names.add(entry.lower())
    return Allowance(frozenset(names), tuple(networks))
