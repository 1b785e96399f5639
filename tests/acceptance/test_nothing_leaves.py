"""Aperta contacts no host that was not configured: packets and questions for names are noted while it is used."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.quiet_network import Sightings, watch

pytestmark = pytest.mark.timeout(900)  # three servers and a worker share a small machine, and are then left alone

LEAK = """import socket
for family, kind, *_, address in socket.getaddrinfo("telemetry.example.org", 443, type=socket.SOCK_STREAM):
    connection = socket.socket(family, kind)
    connection.setblocking(False)
    connection.connect_ex(address)
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("192.0.2.1", 4318))
"""


@dataclass(frozen=True, slots=True)
class Day:
    """A day's use of Aperta: what was seen of it outside, what it left in the user's home, and what was done."""

    seen: Sightings
    left: list[str]
    done: str


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    folder = tmp_path_factory.mktemp("day")
    seen = watch(folder, sys.executable, "-m", "tests.support.everyday", str(folder))
    home = folder / "home"
    left = sorted(str(path.relative_to(home)) for path in home.rglob("*"))
    return Day(seen, left, f"after this was done:\n{seen.output}")


def test_no_name_is_asked_for(day: Day) -> None:
    assert day.seen.questions == [], day.done


def test_no_packet_leaves(day: Day) -> None:
    assert day.seen.packets == [], day.done


def test_nothing_is_left_in_the_home_of_the_user(day: Day) -> None:
    assert day.left == [], day.done


def test_a_program_that_leaks_is_seen(tmp_path: Path) -> None:
    seen = watch(tmp_path, sys.executable, "-c", LEAK)
    assert {*seen.questions} == {"telemetry.example.org (type 1)", "telemetry.example.org (type 28)"}
    assert {*seen.packets} == {"tcp 203.0.113.9 port 443", "tcp 2001:db8:1::9 port 443", "udp 192.0.2.1 port 4318"}
