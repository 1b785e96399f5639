"""Code that a hostile file made FFmpeg run: it takes the place of PyAV in a decoder, and tries to get out.

The recording is not sound but `fLaC` and JSON that says what to try on what. Each attempt is answered with "done" or
with the error that it met.
"""

# System calls are what is tried:
# ruff: noqa: PTH101, PTH102, PTH104, PTH108, PTH116, PTH208, PTH211

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Attempt = Callable[[], object]

codecs_available: frozenset[str] = frozenset()
error = SimpleNamespace(FFmpegError=RuntimeError, InvalidDataError=RuntimeError)
_LIBC = ctypes.CDLL(None, use_errno=True)
_RAW = {  # x86-64, arm64
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "memfd_create": (319, 279),
    "execveat": (322, 281),
    "clone3": (435, 435),
    "unshare": (272, 97),
    "setns": (308, 268),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "openat2": (437, 437),
    "init_module": (175, 105),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "prctl": (157, 167),
    "seccomp": (317, 277),
    "landlock_create_ruleset": (444, 444),
    "mount_setattr": (442, 442),
    "process_madvise": (440, 440),
    "statx": (332, 291),
    "newfstatat": (262, 79),
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "dup": (32, 23),
    "ftruncate": (77, 46),
    "personality": (135, 92),
}


def open(part: Any, *_arguments: object, **_options: object) -> None:
    """What the decoder calls once it is locked: tries everything, and answers in the decoder's place."""
    orders = json.loads(part.read(1_000_000)[4:])
    [samples] = json.loads(sys.argv[1])["files"]
    attempts = {
        **_files(orders["neighbour"], Path(orders["folder"]), orders["recording"]),
        **_descriptors(part._recording._descriptor, samples),
        **_network(orders["port"], Path(orders["folder"])),
        **_processes(),
        **{f"call {name}": _raw(name) for name in _RAW},
    }
    wanted = orders.get("only") or attempts
    answers = {name: _answer(attempts[name]) for name in wanted}
    facts = {
        "environment": dict(os.environ),
        "descriptors": [number for number in range(64) if _is_open(number)],
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_CORE", "RLIMIT_NPROC")},
        "status": _status(),
    }
    os.write(1, json.dumps({"result": {"answers": answers, "facts": facts}}).encode() + b"\n")
    os._exit(0)


def _answer(attempt: Attempt) -> str:
    try:
        attempt()
    except (OSError, RuntimeError, ValueError) as met:
        return f"{type(met).__name__}: {met}"
    return "done"


def _is_open(number: int) -> bool:
    try:
        os.lseek(number, 0, os.SEEK_CUR)
    except OSError as met:
        return met.errno != errno.EBADF
    return True


def _status() -> dict[str, str]:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def _files(neighbour: str, folder: Path, recording: str) -> dict[str, Attempt]:
    server = f"/proc/{os.getppid()}"
    read = {
        "password file": "/etc/passwd",
        "neighbour": neighbour,
        "recording by name": recording,
        "server's environment": f"{server}/environ",
        "server's memory map": f"{server}/maps",
        "server's memory": f"{server}/mem",
        "server's descriptors": f"{server}/fd/0",
        "own memory": "/proc/self/mem",
        "own environment": "/proc/self/environ",
        "system": "/sys/kernel/uevent_seqnum",
        "device": "/dev/zero",
    }
    write = {"neighbour": neighbour, "recording": recording, "new file": f"{folder}/new", "own score": _OWN_SCORE}
    return {
        **{f"read {name}": lambda path=path: os.close(os.open(path, os.O_RDONLY)) for name, path in read.items()},
        **{f"write {name}": lambda path=path: os.close(os.open(path, _WRITE, 0o600)) for name, path in write.items()},
        "write without a name": lambda: os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)),
        "open a place": lambda: os.close(os.open("/", os.O_PATH)),
        "list": lambda: os.listdir("/"),
        "look at a file": lambda: os.stat(neighbour),
        "change folder": lambda: os.chdir("/"),
        "change root": lambda: os.chroot(folder),
        "symbolic link": lambda: os.symlink("/etc/passwd", folder / "link"),
        "hard link": lambda: os.link(neighbour, folder / "hard"),
        "rename": lambda: os.rename(neighbour, folder / "renamed"),
        "delete": lambda: os.unlink(neighbour),
        "make a folder": lambda: os.mkdir(folder / "made"),
        "make a pipe with a name": lambda: os.mkfifo(folder / "fifo"),
        "change rights": lambda: os.chmod(neighbour, 0o666),
        "change owner": lambda: os.chown(neighbour, os.getuid(), os.getgid()),
        "cut off": lambda: os.truncate(neighbour, 0),
        "mount": lambda: _checked(_LIBC.mount(b"none", os.fsencode(folder), b"tmpfs", 0, None)),
        "new code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close(),
    }


_OWN_SCORE = "/proc/self/oom_score_adj"
_WRITE = os.O_WRONLY | os.O_CREAT


def _descriptors(recording: int, samples: int) -> dict[str, Attempt]:
    return {
        "write to the recording": lambda: os.write(recording, b"x"),
        "write by the recording's number": lambda: os.close(os.open(f"/proc/self/fd/{recording}", os.O_WRONLY)),
        "read by the recording's number": lambda: os.close(os.open(f"/proc/self/fd/{recording}", os.O_RDONLY)),
        "read by the samples' number": lambda: os.close(os.open(f"/proc/self/fd/{samples}", os.O_RDONLY)),
        "give the samples away": lambda: os.link(f"/proc/self/fd/{samples}", "/tmp/samples"),
        "reserve the disk": lambda: os.posix_fallocate(samples, 0, 1_000_000_000),
        "write beyond the limit": lambda: os.pwrite(samples, b"x", 1_000_000_000),
    }


def _network(port: int, folder: Path) -> dict[str, Attempt]:
    def connect() -> None:
        with socket.socket() as here:
            here.connect(("127.0.0.1", port))

    def listen() -> None:
        with socket.socket(socket.AF_UNIX) as here:
            here.bind(str(folder / "socket"))

    return {
        "connect": connect,
        "listen on a path": listen,
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close(),
        "raw packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close(),
        "pair of sockets": lambda: [one.close() for one in socket.socketpair()],
    }


def _processes() -> dict[str, Attempt]:
    server = os.getppid()

    def fork() -> None:
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)

    def thread() -> None:
        helper = threading.Thread(target=int)
        helper.start()
        helper.join()

    remote = (ctypes.c_size_t * 2)(0x1000, 8)
    return {
        "fork": fork,
        "thread": thread,
        "start a program": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "become a program": lambda: os.execv("/bin/true", ["true"]),
        "signal the server": lambda: os.kill(server, 0),
        "signal everyone": lambda: os.kill(-1, 0),
        "signal the group": lambda: os.killpg(0, 0),
        "signal by thread": lambda: _checked(_LIBC.tgkill(server, server, 0)),
        "trace the server": lambda: _checked(_LIBC.ptrace(16, server, None, None)),
        "read the server's memory": lambda: _checked(_LIBC.process_vm_readv(server, remote, 1, remote, 1, 0)),
        "write the server's memory": lambda: _checked(_LIBC.process_vm_writev(server, remote, 1, remote, 1, 0)),
        "limit the server": lambda: resource.prlimit(server, resource.RLIMIT_CPU, (1, 1)),
        "ask for the server's limits": lambda: resource.prlimit(server, resource.RLIMIT_CPU),
        "raise a limit": lambda: resource.setrlimit(resource.RLIMIT_AS, resource.getrlimit(resource.RLIMIT_AS)),
        "place the server": lambda: os.sched_setaffinity(server, {0}),
        "slow the server": lambda: os.setpriority(os.PRIO_PROCESS, server, 19),
        "be root": lambda: os.setuid(0),
        "be traceable": lambda: _checked(_LIBC.prctl(4, 1, 0, 0, 0)),
        "send itself a kill by name": lambda: os.kill(os.getpid(), signal.SIGWINCH),
    }


def _raw(name: str) -> Attempt:
    number = _RAW[name][platform.machine() == "aarch64"]
    return lambda: _checked(_LIBC.syscall(ctypes.c_long(number), *[ctypes.c_long(0)] * 5))


def _checked(status: int) -> None:
    if status < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
