"""Which addresses are public, in every form an address can be written in."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis.strategies import ip_addresses

from backend.domain.access.addresses import is_public, parse_allowance

CLOSED = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.31.255.255",
    "192.0.0.192",
    "192.168.0.1",
    "198.18.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:8.8.8.8",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:0a00:0001::1",
    "2002:0808:0808::1",
    "3fff::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
OPEN = ["1.1.1.1", "8.8.8.8", "100.128.0.1", "172.32.0.1", "2606:4700:4700::1111", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize("address", CLOSED)
def test_addresses_that_are_no_public_unicast_are_closed(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", OPEN)
def test_public_addresses_are_open(address: str) -> None:
    assert is_public(ip_address(address))


@given(ip_addresses())
def test_nothing_is_public_that_python_calls_private_or_multicast(address: IPv4Address | IPv6Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast


@given(ip_addresses(v=4))
def test_an_ipv4_address_behind_nat64_is_judged_by_itself(address: IPv4Address) -> None:
    behind = IPv6Address(int(IPv6Address("64:ff9b::")) + int(address))

    assert is_public(behind) == is_public(address)


def test_an_allowance_permits_names_and_networks_and_what_is_public() -> None:
    allowance = parse_allowance(" n8n , 10.1.0.0/16,192.168.7.7, fd12::/32 ")

    assert allowance.permits("N8N", ip_address("172.18.0.5"))
    assert allowance.permits("any", ip_address("10.1.255.1"))
    assert allowance.permits("any", ip_address("192.168.7.7"))
    assert allowance.permits("any", ip_address("fd12::9"))
    assert allowance.permits("any", ip_address("8.8.8.8"))
    assert not allowance.permits("any", ip_address("10.2.0.1"))
    assert not allowance.permits("n8n.evil.example", ip_address("172.18.0.5"))


@pytest.mark.parametrize("text", ["10.1.0.1/16", "http://n8n", "n8n:5678", "a b", "*", "*.example.org"])
def test_an_allowance_that_is_no_list_of_hosts_and_networks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no host name and no network"):
        parse_allowance(text)
