"""An isolated network for a program, in which outgoing packets and questions for names are noted.

`watch` starts this module in a new network and mount namespace; there it sets the network up, starts the program and
writes down what it noted. The default routes of IPv4 and IPv6 end at an interface without neighbours.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN = ("198.51.100.2/24", "2001:db8::2/64")
OUTSIDE = "outside"
LINKS = (["type", "dummy"], ["type", "veth", "peer", "name", "far"])
"""Interfaces of which a kernel has one or the other."""
ANSWERS = {1: ipaddress.ip_address("203.0.113.9"), 28: ipaddress.ip_address("2001:db8:1::9")}
"""What the name server says to every question for an address, by type (A, AAAA): reached by a default route."""
NAME_SERVER = ("127.0.0.1", 53)
FILES = {"resolv.conf": f"nameserver {NAME_SERVER[0]}\n", "nsswitch.conf": "hosts: files dns\n"}
CONTROL = ("control.example.org", 9)
PROTOCOLS = {6: "tcp", 17: "udp"}
HOP_BY_HOP, IGMP, ICMPV6 = 0, 2, 58
NEIGHBOURS = range(130, 144)
"""Types of ICMPv6 by which a kernel looks for routers, neighbours and groups on each of its interfaces."""
ALL_PROTOCOLS = 3
NOTED_WITHIN_S = 10


@dataclass(frozen=True, slots=True)
class Sightings:
    """What would have left the machine: names asked for, and where packets went; and what the program printed."""

    questions: list[str] = field(default_factory=list)
    packets: list[str] = field(default_factory=list)
    output: str = ""


def watch(folder: Path, *command: str) -> Sightings:
    """Run a program in an isolated network, with an empty home in `folder`; skips where that is not permitted.

    Before and after the program a name is asked for and connected to, and this fails if that was not noted.

    Raises:
        AssertionError: the program failed.
    """
    home, report = folder / "home", folder / "sightings.json"
    home.mkdir()
    arguments = [*_namespaces(), sys.executable, "-m", "tests.support.quiet_network", str(report), *command]
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    environment = {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(arguments, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{output}"
    return Sightings(**json.loads(report.read_text()), output=output)


def _namespaces() -> list[str]:
    unshare = ["unshare", "--net", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if shutil.which("ip") is None:
        pytest.skip("there is no ip to set a network up: apt-get install iproute2")
    tried = subprocess.run([*unshare, "mount", "--bind", "/etc", "/etc"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"needs network and mount namespaces: be root, or permit user namespaces ({tried.stderr.strip()})")
    return unshare


class Recorder:
    """Notes the packets that go outside, and answers and notes the questions for names."""

    def __init__(self) -> None:
        self._seen = Sightings()
        self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
        self._packets.bind((OUTSIDE, 0))
        self._questions = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._questions.bind(NAME_SERVER)
        for work in (self._note_packets, self._note_questions):
            threading.Thread(target=work, daemon=True).start()

    def turn_page(self) -> Sightings:
        """What was noted so far; proves that notes are taken by asking for a name and connecting to it.

        What came before is noted by then, too: both sockets give things in the order in which they came.
        """
        control = _controls()
        end = time.monotonic() + NOTED_WITHIN_S
        while not (control[0] <= {*self._seen.questions} and control[1] <= {*self._seen.packets}):
            assert time.monotonic() < end, f"the control was not noted: {self._seen}"
            time.sleep(0.01)
        seen, self._seen = self._seen, Sightings()
        return Sightings(_without(seen.questions, control[0]), _without(seen.packets, control[1]))

    def _note_packets(self) -> None:
        while True:
            frame, address = self._packets.recvfrom(65535)
            if address[2] == socket.PACKET_OUTGOING and (seen := _destination(frame)):
                self._seen.packets.append(seen)

    def _note_questions(self) -> None:
        while True:
            query, client = self._questions.recvfrom(65535)
            name, kind, end = _question(query)
            self._seen.questions.append(f"{name} (type {kind})")
            answer = ANSWERS[kind].packed if kind in ANSWERS else b""
            head = query[:2] + b"\x81\x80\0\1" + (b"\0\1" if answer else b"\0\0") + bytes(4)
            record = b"\xc0\x0c" + query[end - 4 : end] + bytes(4) + len(answer).to_bytes(2) + answer if answer else b""
            self._questions.sendto(head + query[12:end] + record, client)


def _controls() -> tuple[set[str], set[str]]:
    """Do what is to be noted; returns the notes that there must be."""
    for family, kind, *_, address in socket.getaddrinfo(*CONTROL, type=socket.SOCK_STREAM):
        with socket.socket(family, kind) as connection:
            connection.setblocking(False)
            connection.connect_ex(address)
    questions = {f"{CONTROL[0]} (type {kind})" for kind in ANSWERS}
    return questions, {f"tcp {address} port {CONTROL[1]}" for address in ANSWERS.values()}


def _without(notes: Iterable[str], control: set[str]) -> list[str]:
    return [note for note in notes if note not in control]


def _destination(frame: bytes) -> str | None:
    """Where an Ethernet frame goes; None if it is the kernel's own."""
    kind, packet = int.from_bytes(frame[12:14]), frame[14:]
    if kind == 0x0800:
        protocol, to, rest = packet[9], ipaddress.ip_address(packet[16:20]), packet[(packet[0] & 15) * 4 :]
    elif kind == 0x86DD:
        protocol, to, rest = packet[6], ipaddress.ip_address(packet[24:40]), packet[40:]
    else:
        return f"a frame of type {kind:#06x}"
    if protocol == HOP_BY_HOP:
        protocol, rest = rest[0], rest[(rest[1] + 1) * 8 :]
    if protocol == IGMP or (protocol == ICMPV6 and rest[0] in NEIGHBOURS):
        return None
    port = f" port {int.from_bytes(rest[2:4])}" if protocol in PROTOCOLS else ""
    return f"{PROTOCOLS.get(protocol, f'protocol {protocol}')} {to}{port}"


def _question(query: bytes) -> tuple[str, int, int]:
    """Name and type of what a query asks for, and where the question ends."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return ".".join(labels), int.from_bytes(query[at + 1 : at + 3]), at + 5


def _set_up(folder: Path) -> None:
    """Addresses and default routes of both kinds, and a name server in /etc; only in the namespaces of this process."""
    _ip("link", "set", "lo", "up")
    if not any(_ip("link", "add", OUTSIDE, *link, check=False) for link in LINKS):
        raise OSError("this kernel has neither dummy nor veth interfaces")
    _ip("link", "set", OUTSIDE, "arp", "off", "up")
    _ip("link", "set", "far", "up", check=False)  # a veth carries nothing before its other end is up
    for version, address, options in ((4, OWN[0], []), (6, OWN[1], ["nodad"])):
        _ip("address", "add", address, "dev", OUTSIDE, *options)
        _ip(f"-{version}", "route", "add", "default", "dev", OUTSIDE)
    for name, text in FILES.items():
        (folder / name).write_text(text)
        subprocess.run(["mount", "--bind", str(folder / name), f"/etc/{name}"], check=True)


def _ip(*arguments: str, check: bool = True) -> bool:
    return subprocess.run(["ip", *arguments], check=check, capture_output=not check).returncode == 0


def main(report: Path, command: Sequence[str]) -> int:
    """Inside: run the program, write what was noted; returns the program's status."""
    with tempfile.TemporaryDirectory() as folder:
        _set_up(Path(folder))
        recorder = Recorder()
        recorder.turn_page()
        status = subprocess.run(command).returncode
        seen = recorder.turn_page()
        report.write_text(json.dumps({"questions": seen.questions, "packets": seen.packets}))
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
