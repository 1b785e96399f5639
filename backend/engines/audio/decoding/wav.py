"""What the sizes in a WAV header are worth: RIFF, RIFX, RF64 and BW64.

Recorders write the header first and mend it when they stop, programs that stream never mend it, and counters of 32 bits
run over at 4 GiB. So a size is a promise, a placeholder, or out of date; which of them, the bytes behind it tell.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from backend.domain.losses import Loss, LossKind
from backend.engines.audio.decoding.recording import OpenRecording
from backend.errors import InvalidAudio

NEARLY_MAX_BYTES = 0x7FFF_0000
"""Programs that stream write 0, or a value near the maximum of 31 or 32 bits."""
ROUND_BYTES, SMALLEST_POWER = 100_000_000, 1 << 24
"""Others write a round number: a multiple of the first, or a power of two from the second on."""
HEADER_BYTES = 128
"""By how much a placeholder may differ from a round number: the bytes that the program counts with it or not."""
CUT_BYTES = 4096
"""What may be missing at the end without a word: a last block that was not written."""
NO_RECORDING_S = 43_200.0
"""No recording that breaks off lacks so much; a header that promises more is a placeholder of some kind."""
TAIL_S = 0.1
"""Less than this behind the promised end is padding, a signature or the like."""
MAX_CHUNKS = 10_000
MAX_MENDED_BYTES = 1024**2
_MAGIC = re.compile(rb"(?:RIFF|RIFX|RF64|BW64)....WAVE", re.DOTALL)
_CHUNK_NAME = re.compile(rb"[ -~]{4}")


@dataclass(frozen=True, slots=True)
class Wav:
    """One WAV recording in a file.

    Attributes:
        end: where it ends: the end of the file, or where the next one begins.
        head: the header with its size mended; empty: it is right.
        losses: what the header says and the file does not.
    """

    end: int
    head: bytes = b""
    losses: tuple[Loss, ...] = ()


@dataclass(frozen=True, slots=True)
class _Header:
    data_at: int
    promised_bytes: int
    bytes_per_s: int
    size_at: int
    size_width: int
    byte_order: str

    def seconds(self, size_bytes: int) -> float:
        return size_bytes / self.bytes_per_s


def read_wav(recording: OpenRecording, start: int) -> Wav:
    """What stands in a file from a WAV header on.

    Raises:
        InvalidAudio: the file ends visibly before its header says.
    """
    header = _read_header(recording, start)
    end = recording.size_bytes
    if header is None:
        return Wav(end)
    there = end - header.data_at
    if header.promised_bytes > there:
        return _shorter(recording, start, header, there)
    after = header.data_at + header.promised_bytes
    following = [after + pad for pad in (header.promised_bytes % 2, 0)]
    for at in following:
        if _MAGIC.match(recording.peek(12, at)):
            return Wav(at)
    is_known = header.promised_bytes == 0 or any(_chunks_follow(recording, at) for at in following)
    if is_known or header.seconds(end - after) < TAIL_S or _is_zero(recording, after):
        return Wav(end)
    loss = Loss(
        LossKind.HEADER, header.seconds(header.promised_bytes), header.seconds(there), what="all of it was read"
    )
    return Wav(end, _mended(recording, start, header, there), (loss,))


def _shorter(recording: OpenRecording, start: int, header: _Header, there: int) -> Wav:
    """A header that promises more than there is: a placeholder, or the rest is missing."""
    promised, missing = header.promised_bytes, header.promised_bytes - there
    if missing <= CUT_BYTES or _is_placeholder(promised):
        return Wav(recording.size_bytes, _mended(recording, start, header, there))
    if header.seconds(missing) >= NO_RECORDING_S:
        loss = Loss(LossKind.HEADER, header.seconds(promised), header.seconds(there), what="it was read to its end")
        return Wav(recording.size_bytes, _mended(recording, start, header, there), (loss,))
    raise InvalidAudio(
        f"The file is truncated: its header promises {promised} bytes of sound ({header.seconds(promised):.1f} s), but "
        f"only {there} ({header.seconds(there):.1f} s) are there. Send the whole file. If it is whole or there is no "
        "more of it, have the header written anew: `ffmpeg -i OLD.wav -c copy NEW.wav`."
    )


def _is_placeholder(size_bytes: int) -> bool:
    nearest = [
        round(size_bytes / ROUND_BYTES) * ROUND_BYTES,
        1 << size_bytes.bit_length(),
        1 << size_bytes.bit_length() - 1,
    ]
    return size_bytes >= NEARLY_MAX_BYTES or any(
        number >= SMALLEST_POWER and abs(size_bytes - number) <= HEADER_BYTES for number in nearest
    )


def _read_header(recording: OpenRecording, start: int) -> _Header | None:
    byte_order = "big" if recording.peek(4, start) == b"RIFX" else "little"
    at, bytes_per_s, long_size = start + 12, 0, (0, 0)

    def number(place: int, width: int = 4) -> int:
        return int.from_bytes(recording.peek(width, place), byte_order)  # type: ignore[arg-type]

    for _ in range(MAX_CHUNKS):
        name, size = recording.peek(4, at), number(at + 4)
        if name == b"ds64":
            long_size = (number(at + 16, 8), at + 16)
        elif name == b"fmt ":
            bytes_per_s = number(at + 16)
        elif name == b"data":
            if bytes_per_s == 0:
                return None
            if size == 0xFFFF_FFFF and long_size[1]:
                return _Header(at + 8, long_size[0], bytes_per_s, long_size[1], 8, byte_order)
            return _Header(at + 8, size, bytes_per_s, at + 4, 4, byte_order)
        if len(name) < 4:
            return None
        at += 8 + size + size % 2
    return None


def _mended(recording: OpenRecording, start: int, header: _Header, size_bytes: int) -> bytes:
    """The header with the size that is there; nothing if it is too long to be kept."""
    if header.data_at - start > MAX_MENDED_BYTES:
        return b""
    head = bytearray(recording.peek(header.data_at - start, start))
    most = (1 << 8 * header.size_width) - 1
    field = slice(header.size_at - start, header.size_at - start + header.size_width)
    head[field] = min(size_bytes, most).to_bytes(header.size_width, header.byte_order)  # type: ignore[arg-type]
    return bytes(head)


def _chunks_follow(recording: OpenRecording, at: int) -> bool:
    """Whether nothing but whole chunks stands between a place and the end of the file."""
    for _ in range(MAX_CHUNKS):
        head = recording.peek(8, at)
        if len(head) < 8:
            return True
        if not _CHUNK_NAME.fullmatch(head[:4]):
            return False
        size = int.from_bytes(head[4:], "little")
        at += 8 + size + size % 2
        if at > recording.size_bytes + 1:
            return False
    return False


def _is_zero(recording: OpenRecording, start: int) -> bool:
    return not any(block.strip(b"\0") for _, block in recording.blocks(start, recording.size_bytes))
