"""The system calls that a decoder may make once it is locked, as a seccomp filter. Nothing else is known to it.

No library: the bindings on the package index need libseccomp on the machine, which slim images leave out.
Sources: the kernel's Documentation/userspace-api/seccomp_filter.rst; numbers from its syscall_64.tbl (x86) and
include/uapi/asm-generic/unistd.h (arm64).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_X86_64, _AARCH64 = 0, 1
_MACHINES = {"x86_64": _X86_64, "aarch64": _AARCH64}
_AUDIT_ARCHITECTURES = (0xC000003E, 0xC00000B7)
_SECCOMP = (317, 277)
_CLONE3 = (435, 435)
_X32 = 0x4000_0000
"""x86-64 has a second set of numbers from here on, for programs with short pointers."""

_FREE_CALLS = {
    "read": (0, 63),
    "write": (1, 64),
    "pread64": (17, 67),
    "lseek": (8, 62),
    "futex": (202, 98),
    "brk": (12, 214),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "clock_gettime": (228, 113),
    "close": (3, 57),
    "fstat": (5, 80),
    "fstatfs": (138, 44),
    "readv": (19, 65),
    "writev": (20, 66),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "sched_yield": (24, 124),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
_MMAP, _MPROTECT, _OPENAT = (9, 222), (10, 226), (257, 56)
_TGKILL, _PRLIMIT64, _SCHED_GETAFFINITY = (234, 131), (302, 261), (204, 123)

_ALLOW, _ERRNO, _KILL = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
_LOAD, _AND, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_WHOLE = 0xFFFF_FFFF
_PROT_EXEC = 4
_SET_MODE_FILTER, _FOR_ALL_THREADS = 1, 1


class _Check(NamedTuple):
    """The 32-bit half of an argument must have this value where the mask has ones."""

    argument: int
    mask: int
    value: int
    upper: bool = False


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def install(libc: ctypes.CDLL, *, may_open: bool) -> bool:
    """Lock this process, all threads of it, for good. It needs `no_new_privs`.

    Args:
        libc: the C library, opened with `use_errno`.
        may_open: whether files may be opened for reading, because something else decides which.

    Returns:
        Whether the filter holds; not on other processors, nor on kernels without seccomp.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    code = b"".join(_filter(machine, may_open=may_open))
    program = _Program(len(code) // 8, code)
    number = ctypes.c_long(_SECCOMP[machine])
    return bool(
        libc.syscall(number, ctypes.c_ulong(_SET_MODE_FILTER), ctypes.c_ulong(_FOR_ALL_THREADS), ctypes.byref(program))
        == 0
    )


def _filter(machine: int, *, may_open: bool) -> Iterator[bytes]:
    yield _instruction(_LOAD, _ARCHITECTURE_AT)
    yield _instruction(_IF_EQUAL, _AUDIT_ARCHITECTURES[machine], 1, 0)
    yield _instruction(_RETURN, _KILL)
    yield _instruction(_LOAD, _NUMBER_AT)
    if machine == _X86_64:
        yield _instruction(_IF_AT_LEAST, _X32, 0, 1)
        yield _refuse(errno.EPERM)
    for numbers in _FREE_CALLS.values():
        yield from _rule(numbers[machine], ())
    for call, checks in _checked_calls(may_open=may_open):
        yield from _rule(call[machine], checks)
    yield _instruction(_IF_EQUAL, _CLONE3[machine], 0, 1)
    yield _refuse(errno.ENOSYS)  # its flags are out of reach; callers then take clone, which is refused
    yield _refuse(errno.EPERM)


def _checked_calls(*, may_open: bool) -> Iterator[tuple[tuple[int, int], Sequence[_Check]]]:
    for call in (_MMAP, _MPROTECT):
        yield call, [_Check(2, _PROT_EXEC, 0)]  # no new code
    yield _TGKILL, [_Check(0, _WHOLE, os.getpid())]  # abort() in FFmpeg or the C library
    yield _SCHED_GETAFFINITY, [_Check(0, _WHOLE, 0)]
    yield _PRLIMIT64, [_Check(0, _WHOLE, 0), _Check(2, _WHOLE, 0), _Check(2, _WHOLE, 0, upper=True)]  # to ask only
    if may_open:
        yield _OPENAT, [_Check(2, _WHOLE & ~os.O_CLOEXEC, os.O_RDONLY)]


def _rule(number: int, checks: Sequence[_Check]) -> Iterator[bytes]:
    body = [*(part for check in checks for part in _checked(check)), _instruction(_RETURN, _ALLOW)]
    yield _instruction(_IF_EQUAL, number, 0, len(body))
    yield from body


def _checked(check: _Check) -> Iterator[bytes]:
    yield _instruction(_LOAD, _ARGUMENTS_AT + 8 * check.argument + 4 * check.upper)  # both machines are little-endian
    yield _instruction(_AND, check.mask)
    yield _instruction(_IF_EQUAL, check.value, 1, 0)
    yield _refuse(errno.EPERM)


def _refuse(number: int) -> bytes:
    return _instruction(_RETURN, _ERRNO | number)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
