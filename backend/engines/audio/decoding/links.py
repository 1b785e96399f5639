"""Where one recording ends in a file and the next begins: joined voice messages, web radio, restarted recorders.

Demuxers read the first and leave the rest, or break off where the parameters change; so each is opened by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from backend.domain.losses import Loss
from backend.engines.audio.decoding.recording import OpenRecording, RecordingPart
from backend.engines.audio.decoding.signatures import HEAD_BYTES, allowed_demuxers
from backend.engines.audio.decoding.wav import read_wav
from backend.errors import EmptyAudio, UnsupportedMedia

LONGEST_MARK_BYTES = 128
MAX_BOXES = 1_000_000
_OGG_BEGINNING = re.compile(rb"OggS\0[\x02\x03\x06\x07].{12}\0{4}.{5}", re.DOTALL)  # a first page, RFC 3533
_MATROSKA_BEGINNING = re.compile(rb"\x1a\x45\xdf\xa3.{1,64}?(?:webm|matroska)", re.DOTALL)
_FLAC_BEGINNING = re.compile(rb"fLaC[\x00\x80]\0\0\x22")
_AMR_BEGINNING = re.compile(rb"#!AMR(?:-WB)?\n")
_SEGMENT = b"\x18\x53\x80\x67"


@dataclass(frozen=True, slots=True)
class Link:
    """One of the recordings that a file holds one behind the other.

    Attributes:
        start, end: its first byte, and the first behind it.
        demuxers: those that may open it, separated by commas.
        head: what to read in place of its first bytes.
        losses: what its header says and the file does not.
    """

    start: int
    end: int
    demuxers: str
    head: bytes = b""
    losses: tuple[Loss, ...] = ()

    def part_of(self, recording: OpenRecording) -> RecordingPart:
        """The bytes to read, with its header mended."""
        return recording.part(self.start, self.end, self.head)


def first_link(recording: OpenRecording) -> Link:
    """The recording that a file begins with, as far as its header tells.

    Raises:
        EmptyAudio: there are no bytes.
        UnsupportedMedia: it begins like no recording.
        InvalidAudio: it ends visibly before its header says.
    """
    head = recording.peek(HEAD_BYTES)
    if not head:
        raise EmptyAudio("The file is empty (0 bytes). Send a recording.")
    demuxers = allowed_demuxers(head)
    if demuxers is None:
        raise unreadable("it does not begin like any of them")
    return _wav(recording, 0) if demuxers == "wav" else Link(0, recording.size_bytes, demuxers)


def find_links(recording: OpenRecording) -> Iterator[Link]:
    """The recordings in a file, in their order; mostly there is one. Raises as `first_link`."""
    link = first_link(recording)
    if link.demuxers == "wav":
        while True:
            yield link
            if link.end >= recording.size_bytes:
                return
            link = _wav(recording, link.end)
    find = _FINDERS.get(link.demuxers)
    starts = [0, *(find(recording) if find else ())]
    for start, end in pairwise([*starts, recording.size_bytes]):
        yield Link(start, end, link.demuxers)


def unreadable(reason: str) -> UnsupportedMedia:
    """The error for what is no recording."""
    return UnsupportedMedia(
        f"This is not an audio or video file that can be read ({reason}). "
        "Send wav, mp3, m4a, mp4, mkv, webm, ogg, opus, flac, amr, wma or another common format."
    )


def _wav(recording: OpenRecording, start: int) -> Link:
    wav = read_wav(recording, start)
    return Link(start, wav.end, "wav", wav.head, wav.losses)


def _marks(mark: re.Pattern[bytes]) -> Callable[[OpenRecording], Iterator[int]]:
    """Places behind the beginning where a mark stands."""

    def find(recording: OpenRecording) -> Iterator[int]:
        last = 0
        for at, block in recording.blocks(0, recording.size_bytes, LONGEST_MARK_BYTES):
            for match in mark.finditer(block):
                if at + match.start() > last:
                    last = at + match.start()
                    yield last

    return find


def _ogg(recording: OpenRecording) -> Iterator[int]:
    """First pages that do not follow other first pages: those belong to streams side by side."""
    page_end = _ogg_page_end(recording, 0)
    for start in _marks(_OGG_BEGINNING)(recording):
        if start != page_end:
            yield start
        page_end = _ogg_page_end(recording, start)


def _ogg_page_end(recording: OpenRecording, start: int) -> int:
    head = recording.peek(27 + 255, start)
    lengths = head[27 : 27 + head[26]] if len(head) > 26 else b""
    return start + 27 + len(lengths) + sum(lengths)


def _matroska(recording: OpenRecording) -> Iterator[int]:
    """Headers behind a segment. Live recordings do not know its size: those are searched."""
    end = _matroska_end(recording, 0)
    if end is None:
        yield from _marks(_MATROSKA_BEGINNING)(recording)
        return
    while end is not None and _MATROSKA_BEGINNING.match(recording.peek(LONGEST_MARK_BYTES, end)):
        yield end
        end = _matroska_end(recording, end)


def _matroska_end(recording: OpenRecording, start: int) -> int | None:
    """Where the segment behind a header ends; None: it does not say, or is not there."""
    at, size = _element(recording, start)
    if size is None or recording.peek(4, at + size) != _SEGMENT:
        return None
    at, size = _element(recording, at + size)
    return None if size is None else at + size


def _element(recording: OpenRecording, start: int) -> tuple[int, int | None]:
    """Where the content of an EBML element with an id of four bytes begins, and its size (RFC 8794, section 6)."""
    head = recording.peek(12, start)[4:]
    if not head or not head[0]:
        return start + 4, None
    width = 9 - head[0].bit_length()
    value = int.from_bytes(head[:width], "big") & ((1 << 7 * width) - 1)
    return start + 4 + width, None if value == (1 << 7 * width) - 1 else value


def _boxes(recording: OpenRecording) -> Iterator[int]:
    """File type boxes behind a film (ISO/IEC 14496-12, 4.2)."""
    at, has_film = 0, False
    for _ in range(MAX_BOXES):
        head = recording.peek(16, at)
        size, name = int.from_bytes(head[:4], "big"), head[4:8]
        if name == b"ftyp" and has_film:
            has_film = False
            yield at
        has_film |= name == b"moov"
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if size < 8 or len(head) < 8:
            return
        at += size


_FINDERS: dict[str, Callable[[OpenRecording], Iterator[int]]] = {
    "ogg": _ogg,
    "matroska": _matroska,
    "mov": _boxes,
    "flac": _marks(_FLAC_BEGINNING),
    "amr": _marks(_AMR_BEGINNING),
}
