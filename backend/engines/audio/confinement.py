"""What locks the decoder's process in, before it reads the first byte of a recording. Linux only.

Sources: landlock(7), seccomp(2), user_namespaces(7), capabilities(7), and the kernel's
Documentation/userspace-api/landlock.rst. Landlock's bindings on the package index are experiments, so the three calls
stand here.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from backend.engines.audio import seccomp
from backend.errors import EngineUnavailable

NOBODY_ID = 65_534
OWN_STATUS = "/proc/self/status"
"""Stays readable where Landlock holds: it shows from inside what holds, and says nothing of other processes."""

_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWIPC = 0x1000_0000, 0x4000_0000, 0x0800_0000
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_CAPABILITY_VERSION_3 = 0x2008_0522
_LANDLOCK_CREATE_RULESET, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT_SELF = 444, 445, 446
_LANDLOCK_CREATE_RULESET_VERSION, _LANDLOCK_RULE_PATH_BENEATH = 1, 1
_LANDLOCK_READ_FILE = 1 << 2
_LANDLOCK_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""Version of the interface → how many rights over files it knows."""
_LANDLOCK_NETWORK, _LANDLOCK_SCOPES = 0b11, 0b11


class Confinement(StrEnum):
    """How firmly decoders are locked in: as far as the machine can, firmly or not at all, or not."""

    AUTO = "auto"
    REQUIRE = "require"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the kernel lets a decoder use.

    Attributes:
        max_cpu_s: seconds of computing.
        max_memory_bytes: address space.
        max_file_bytes: size of each file it writes.
    """

    max_cpu_s: int
    max_memory_bytes: int
    max_file_bytes: int


@dataclass(frozen=True, slots=True)
class Measures:
    """Which measures hold for a decoder on this machine.

    Attributes:
        landlock: version of the kernel's interface; 0: files are not confined by it.
        seccomp: whether only the calls of `seccomp` are let through.
        no_new_privs: whether no program could give it rights.
        user_namespace: whether its users, network and shared memory are apart from the machine's.
        unprivileged: whether it is not root, or no longer.
        network: what keeps it from the network: "namespace", "seccomp" or "nothing".
    """

    landlock: int = 0
    seccomp: bool = False
    no_new_privs: bool = False
    user_namespace: bool = False
    unprivileged: bool = False
    network: str = "nothing"

    @property
    def missing(self) -> list[str]:
        """What a confinement that is required lacks."""
        lacks = {
            "seccomp": not self.seccomp,
            "no_new_privs": not self.no_new_privs,
            "Landlock or user namespaces": not (self.landlock or self.user_namespace),
        }
        return [name for name, is_missing in lacks.items() if is_missing]

    def check(self) -> None:
        """Raises EngineUnavailable if a required measure is missing."""
        if self.missing:
            raise EngineUnavailable(
                f"DECODER_CONFINEMENT=require, but this machine lacks {', '.join(self.missing)}. Use a kernel (6.2 or "
                "newer) and a container runtime that allow them, or set DECODER_CONFINEMENT=auto."
            )


def confine(limits: Limits, confinement: Confinement = Confinement.AUTO) -> Measures:
    """Give up everything but the files that are open: other files, network, programs, processes, rights.

    There is no way back, and nothing can be imported afterwards.

    Returns:
        Which measures hold; those that the machine refuses are left out.

    Raises:
        EngineUnavailable: confinement is required, and a measure that it needs is refused.
    """
    _limit_resources(limits)
    if confinement == Confinement.OFF or sys.platform != "linux":
        _limit_descriptors()
        measures = Measures()
    else:
        measures = _lock(ctypes.CDLL(None, use_errno=True))
    if confinement == Confinement.REQUIRE:
        measures.check()
    return measures


def _limit_resources(limits: Limits) -> None:
    """Set what every kernel can limit, and make this process the first to go when memory runs out."""
    _limit(resource.RLIMIT_AS, limits.max_memory_bytes)
    _limit(resource.RLIMIT_CPU, limits.max_cpu_s, 1)
    _limit(resource.RLIMIT_FSIZE, limits.max_file_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    with suppress(OSError):  # not Linux, or a process that may not look after itself
        Path("/proc/self/oom_score_adj").write_text("1000")


def _lock(libc: ctypes.CDLL) -> Measures:
    """Each step takes away what the steps after it do not need."""
    unprivileged = _leave_root()
    _limit(resource.RLIMIT_NPROC, 0)
    alone = libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWIPC) == 0
    _drop_capabilities(libc)
    no_new_privs = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    landlock = _restrict_files(libc) if no_new_privs else 0
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # after the changes of rights, which set it anew
    _limit_descriptors()
    filtered = no_new_privs and seccomp.install(libc, may_open=landlock > 0)
    network = "namespace" if alone else "seccomp" if filtered else "nothing"
    return Measures(landlock, filtered, no_new_privs, alone, unprivileged, network)


def _limit_descriptors() -> None:
    """One more file may be open than there are, so that what a container names stays shut."""
    free = os.dup(sys.stdout.fileno())  # the lowest number there is; nothing can be opened any more
    os.close(free)
    _limit(resource.RLIMIT_NOFILE, free + 1)


def _limit(kind: int, value: int, grace: int = 0) -> None:
    """Lower a limit; one that is lower already stays."""
    _, hard = resource.getrlimit(kind)
    most = value + grace if hard == resource.RLIM_INFINITY else min(value + grace, hard)
    resource.setrlimit(kind, (min(value, most), most))


def _leave_root() -> bool:
    """Change from root to the user with the fewest rights, so that root's files are not this process's own."""
    with suppress(PermissionError):  # root without CAP_SETUID
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY_ID, NOBODY_ID, NOBODY_ID)
            os.setresuid(NOBODY_ID, NOBODY_ID, NOBODY_ID)
    return os.geteuid() != 0


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    header, none = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24)
    libc.capset(ctypes.create_string_buffer(header), ctypes.create_string_buffer(none))


def _restrict_files(libc: ctypes.CDLL) -> int:
    """Shut the file system but for `OWN_STATUS`, TCP, others' signals and sockets, as far as this kernel knows them."""
    version = int(_landlock(libc, _LANDLOCK_CREATE_RULESET, None, 0, _LANDLOCK_CREATE_RULESET_VERSION))
    if version < 1:
        return 0
    rights = max(count for since, count in _LANDLOCK_FILE_RIGHTS.items() if since <= version)
    handled = struct.pack("=QQQ", (1 << rights) - 1, _LANDLOCK_NETWORK, _LANDLOCK_SCOPES)
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = _landlock(libc, _LANDLOCK_CREATE_RULESET, ctypes.create_string_buffer(handled), size, 0)
    if rules < 0:
        return 0
    try:
        _allow_reading(libc, rules, OWN_STATUS)
        return version if _landlock(libc, _LANDLOCK_RESTRICT_SELF, rules, 0) == 0 else 0
    finally:
        os.close(rules)


def _allow_reading(libc: ctypes.CDLL, rules: int, path: str) -> None:
    file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = ctypes.create_string_buffer(struct.pack("=Qi", _LANDLOCK_READ_FILE, file))
        _landlock(libc, _LANDLOCK_ADD_RULE, rules, _LANDLOCK_RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(file)


def _landlock(libc: ctypes.CDLL, call: int, *arguments: object) -> int:
    passed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return int(libc.syscall(ctypes.c_long(call), *passed))
