"""The decoder's process as its caller sees it: started for one recording, watched, and ended in every case.

A hostile file can make FFmpeg take gigabytes (777 bytes of MP4 that claim 50 million samples: 1.8 GB), loop, or crash.
In a separate process, locked in by confinement.py, that costs the recording and nothing else; and cancelling is a
kill instead of a wait. Nothing that this process says is believed without a look.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from backend import errors
from backend.engines.audio.confinement import Confinement, Measures
from backend.engines.progress import TICK_S, Progress, ignore_progress

_ROOT = str(Path(__file__).resolve().parents[3])
_RAISED: dict[str, type[errors.AppError]] = {
    kind.__name__: kind
    for kind in (
        errors.EmptyAudio,
        errors.InvalidAudio,
        errors.UnsupportedMedia,
        errors.TooLarge,
        errors.StorageFull,
        errors.EngineUnavailable,
    )
}
_CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
_KEPT_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL")
_MAX_MESSAGE_BYTES, _MAX_DETAIL_LENGTH = 65_536, 1000
NONSENSE = "The recording cannot be read: it makes the decoder talk nonsense. Export it again, or convert it to FLAC."
_REPORT_CPU_S = 10.0


def run_decoder(
    request: Mapping[str, object],
    *,
    max_cpu_s: float,
    files: Sequence[IO[bytes]] = (),
    progress: Progress = ignore_progress,
) -> dict[str, Any]:
    """Run one request of decoder.py in a new process.

    Args:
        request: what to do; see decoder.py.
        max_cpu_s: seconds of computing after which it is given up.
        files: open files that the decoder writes samples to.
        progress: called at least every `TICK_S` with the fraction done; what it raises ends the decoder at once.

    Returns:
        The decoder's result.

    Raises:
        EmptyAudio, InvalidAudio, UnsupportedMedia, TooLarge, StorageFull: as the decoder says, or because it crashed.
        EngineUnavailable: another process ended it, or it cannot be confined as required.
    """
    order = {**request, "files": [file.fileno() for file in files], "max_cpu_s": max_cpu_s}
    with _start(order) as (decoder, complaints):
        for message in _messages(decoder, progress):
            if isinstance(result := message.get("result"), dict):
                return result
            raise _reported(message)
        status = decoder.wait()
        if status == -signal.SIGXCPU:
            raise too_slow(max_cpu_s) if files else _too_much_beside_the_sound(max_cpu_s)
        raise _died(status, complaints)


def measure_confinement(confinement: Confinement) -> Measures:
    """Lock in a decoder that has nothing to do, and ask it which measures hold on this machine.

    Raises:
        EngineUnavailable: confinement is required, and a measure that it needs is refused.
    """
    request = {"path": None, "confinement": confinement}
    return Measures(**run_decoder(request, max_cpu_s=_REPORT_CPU_S)["measures"])


@contextmanager
def _start(order: Mapping[str, Any]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A decoder at work, and the pipe that holds what it complains of; it is ended behind the block.

    The pipe is full at some point, and takes no more then: complaints need neither disk nor a reader.
    """
    complaints, its_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        try:
            decoder = _open_process(order, its_end)
        finally:
            os.close(its_end)
        try:
            yield decoder, complaints
        finally:
            decoder.kill()
            decoder.wait()
            assert decoder.stdout
            decoder.stdout.close()
    finally:
        os.close(complaints)


def _open_process(order: Mapping[str, Any], complaints: int) -> subprocess.Popen[bytes]:
    """The environment is made anew: a file that takes the decoder over finds no secrets in it."""
    environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    environment["PYTHONPATH"] = os.pathsep.join([_ROOT, *(path for path in sys.path if path)])
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "backend.engines.audio.decoder", json.dumps(order)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=complaints,
        pass_fds=order["files"],
        env=environment,
        process_group=0,  # Ctrl-C is for us; we then end it
    )


def _messages(decoder: subprocess.Popen[bytes], progress: Progress) -> Iterator[dict[str, Any]]:
    """Every line the decoder writes but those of its progress, which are passed on; silence repeats the last one."""
    assert decoder.stdout
    source, done, rest = decoder.stdout.fileno(), 0.0, b""
    readable = select.poll()
    readable.register(source, select.POLLIN)
    while True:
        progress(done)
        if not readable.poll(TICK_S * 1000):
            continue
        data = os.read(source, 65536)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > _MAX_MESSAGE_BYTES:
            raise _nonsense()
        for line in lines:
            message = _parse(line)
            if "progress" not in message:
                yield message
            elif isinstance(said := message["progress"], float) and 0.0 <= said <= 1.0:
                done = said


def _parse(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _nonsense() from error
    if not isinstance(message, dict):
        raise _nonsense()
    return message


def _reported(message: Mapping[str, Any]) -> errors.AppError:
    kind = _RAISED.get(str(message.get("error")))
    return kind(str(message.get("detail"))[:_MAX_DETAIL_LENGTH]) if kind else _nonsense()


def _nonsense() -> errors.InvalidAudio:
    return errors.InvalidAudio(NONSENSE)


def _died(status: int, complaints: int) -> Exception:
    """What it means that the decoder ended without a result."""
    if -status in _CRASHES:
        return errors.InvalidAudio(
            f"The recording cannot be read: it makes the decoder crash ({signal.Signals(-status).name}). "
            "Export it again, or convert it to FLAC."
        )
    if status < 0:
        return errors.EngineUnavailable(
            f"The decoder was ended from outside ({signal.Signals(-status).name}), perhaps for want of memory. "
            "Send the recording again."
        )
    said = os.read(complaints, _MAX_MESSAGE_BYTES)  # its other end is closed: there is something, or the end
    return RuntimeError(f"the decoder failed: {said[-2000:].decode('utf-8', 'replace')}")


def too_slow(max_cpu_s: float) -> errors.TooLarge:
    """The error for a recording that takes too long to decode."""
    return errors.TooLarge(
        f"Decoding the recording takes more than {max_cpu_s:.0f} s of computing, which is out of proportion to its "
        "size. Export it again, or raise MAX_DECODE_SECONDS."
    )


def _too_much_beside_the_sound(max_cpu_s: float) -> errors.TooLarge:
    return errors.TooLarge(
        f"Finding the sound in the file takes more than {max_cpu_s:.0f} s of computing: it holds too much beside it, "
        "such as comments or tracks. Export the recording again, without tags."
    )
