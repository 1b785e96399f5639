"""From an open recording to files of samples: every recording in it, every audio track, on one time line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import IO, Any, TypeAlias

import av

from backend.domain.losses import Loss, LossKind
from backend.engines.audio.decoding.clock import Clock
from backend.engines.audio.decoding.containers import describe
from backend.engines.audio.decoding.line import TAGS, Line, reraise_out_of_memory
from backend.engines.audio.decoding.links import Link, find_links, first_link
from backend.engines.audio.decoding.reading import Reader, played, stated_s, whole_s, zero_s
from backend.engines.audio.decoding.recording import OpenRecording, RecordingPart
from backend.engines.audio.decoding.resampling import SAMPLE_RATE_HZ, sample_format
from backend.engines.audio.decoding.streams import Choice, choose_streams, undecodable
from backend.engines.audio.decoding.tracks import BYTES_OF, Budget, Tracks
from backend.engines.audio.decoding.watch import Watch
from backend.engines.audio.probe import MediaInfo
from backend.errors import EmptyAudio, InvalidAudio

OpenPart: TypeAlias = "Callable[[RecordingPart], av.container.InputContainer]"
PROBED_PACKETS = 200
TRAILING_SHARE, MIN_TRAILING_BYTES = 0.02, 32_768
"""What may stand behind the last packet without a word: indices, tags and pictures."""
READ_TO_THE_END = {"ogg", "flac", "flv", "mpegts", "mpeg", "asf", "au", "caf", "aiff", "w64"}
"""Containers in which nothing long stands behind the last packet."""
COUNTED = {"mp3", "aac", "amr"}
"""Containers that count packets in place of time stamps."""
MIN_UNREAD_BYTES, UNREAD_SHARE = 2_000, 0.005
DAMAGED = "The audio stream is damaged: not one packet can be decoded. Export the recording again."
EMPTY = (
    "The recording holds no audio samples: it is empty or was cut off before the first sound. "
    "Check the file in a player and send it again."
)


def check_beginning(recording: OpenRecording, wanted: int | None, open_part: OpenPart) -> MediaInfo:
    """Open a recording and decode until the first sound.

    Args:
        wanted: as `choose_streams`.
        open_part: opens a part of the file as media, as `open_container` does.

    Raises:
        EmptyAudio: there is no packet of sound at all.
        InvalidAudio: none of them can be decoded, or there is no such track.
        UnsupportedMedia: it is no recording, or one that cannot be decoded.
    """
    with open_part(first_link(recording).part_of(recording)) as container:
        heard = choose_streams(container, wanted).heard
        _find_sound(container, {stream.index: stream.codec_context for stream in heard})
        return describe(container, heard[0])


def decode(
    recording: OpenRecording, files: Sequence[IO[bytes]], order: dict[str, Any], open_part: OpenPart
) -> dict[str, object]:
    """Write the samples of a recording.

    Args:
        files: open for writing, as many as there may be tracks.
        order: see the program.
        open_part: as in `check_beginning`.

    Returns:
        What the program says as its result.

    Raises:
        EmptyAudio, InvalidAudio, UnsupportedMedia, TooLarge, StorageFull
    """
    decoding = _Decoding(files, order, open_part)
    for link in find_links(recording):
        decoding.add(recording, link)
    return decoding.finish()


def _find_sound(container: av.container.InputContainer, contexts: dict[int, av.AudioCodecContext]) -> None:
    tried = 0
    for packet, _unread in Reader(container).packets():
        if tried >= PROBED_PACKETS:
            return  # a bad beginning; the rest may be good
        if packet.stream.index not in contexts:
            continue
        try:
            if contexts[packet.stream.index].decode(packet):
                return
        except (av.error.FFmpegError, ValueError) as error:
            reraise_out_of_memory(error)
        tried += packet.size > 0
    raise InvalidAudio(DAMAGED) if tried else EmptyAudio(EMPTY)


class _Decoding:
    """The tracks of one recording, filled link by link."""

    def __init__(self, files: Sequence[IO[bytes]], order: dict[str, Any], open_part: OpenPart) -> None:
        self._files = files
        self._open = open_part
        self._separate = bool(order.get("separate"))
        self._wanted: int | None = order.get("stream")
        self._max_samples: int = order["max_samples"]
        self._budget = Budget(max_bytes=order["max_decoded_bytes"], disk_reserve_bytes=order["disk_reserve_bytes"])
        self._watch = Watch(self._max_samples, order["max_cpu_s"])
        self._info: MediaInfo | None = None
        self._tracks: list[Tracks] = []
        self._losses: list[Loss] = []
        self._end_s = 0.0
        self._has_damage = self._are_channels = False

    def add(self, recording: OpenRecording, link: Link) -> None:
        """Decode the next recording in the file; those behind the first need not be readable."""
        self._losses += link.losses
        try:
            with self._open(link.part_of(recording)) as container:
                choice = choose_streams(container, self._wanted)
                if self._info is None:
                    self._begin(container, choice)
                self._listen(recording, container, choice, link)
        except InvalidAudio:
            if link.start == 0:
                raise
            self._losses.append(Loss(LossKind.BROKEN_OFF, self._end_s, size_bytes=link.end - link.start))

    def finish(self) -> dict[str, object]:
        """Make all tracks equally long, and tell of them."""
        heard = [number for number, tracks in enumerate(self._tracks) if tracks.has_sound]
        if not heard:
            raise InvalidAudio(DAMAGED) if self._has_damage else EmptyAudio(EMPTY)
        n_samples = max(round(self._end_s * SAMPLE_RATE_HZ), *(tracks.n_samples for tracks in self._tracks), 0)
        self._watch.check(n_samples)
        for number in heard:
            self._tracks[number].skip_to(n_samples)
        assert self._info is not None
        return {
            "info": asdict(self._info),
            "tracks": [place for number in heard for place in self._tracks[number].places],
            "are_channels": self._are_channels,
            "n_samples": n_samples,
            "losses": [asdict(loss) for loss in self._losses],
        }

    def _begin(self, container: av.container.InputContainer, choice: Choice) -> None:
        """Share the files out: to the channels of the only stream, or one to each stream."""
        first = choice.heard[0]
        self._info = describe(container, first)
        self._watch.claimed_s = self._info.duration_s or 0.0
        self._losses += choice.passed_over
        self._are_channels = self._separate and len(choice.heard) == 1
        width = self._info.channels if self._are_channels else 1
        for number, stream in enumerate(choice.heard):
            kind = sample_format(stream.codec_context, are_mixed=width == 1)
            self._tracks.append(Tracks(self._files, range(number, number + width), kind, self._budget))
        n_samples = min(round((stated_s(container, first) or 0.0) * SAMPLE_RATE_HZ), self._max_samples)
        expected_bytes = sum(n_samples * len(each.places) * BYTES_OF[each.sample_format] for each in self._tracks)
        self._budget.check_expected(expected_bytes, self._files[0])

    def _listen(
        self, recording: OpenRecording, container: av.container.InputContainer, choice: Choice, link: Link
    ) -> None:
        start_s, limit_s = self._end_s, self._max_samples / SAMPLE_RATE_HZ
        lines = {
            stream.index: Line(stream, tracks, Clock(start_s, zero_s(container), limit_s))
            for stream, tracks in zip(choice.heard, self._tracks, strict=False)
        }
        reader = Reader(container)
        others_end_s = self._read(container, reader, lines)
        self._end_s = max([start_s + others_end_s, *(line.finish() for line in lines.values())])
        self._has_damage |= any(line.n_damaged for line in lines.values())
        if any(line.n_frames for line in lines.values()):
            _check_length(container, choice, self._end_s - start_s)
        for stream in choice.heard:
            line = lines.get(stream.index)
            if line is not None and line.n_frames:
                self._losses += line.losses()
            else:
                self._losses.append(undecodable(container, stream))
        self._losses += _unread(recording, link, reader, start_s, self._end_s)

    def _read(self, container: av.container.InputContainer, reader: Reader, lines: dict[int, Line]) -> float:
        """Read the container.

        Returns:
            Where pictures and tracks that are not listened to end, in seconds from its beginning.
        """
        others = {stream.index for stream in played(container)}
        begin_s, end_s = zero_s(container), 0.0
        for packet, unread_bytes in reader.packets():
            line = lines.get(packet.stream.index)
            self._watch.check(line.n_samples if line else 0)
            if line is not None:
                line.feed(packet, unread_bytes)
            elif packet.stream.index in others and packet.pts is not None and packet.time_base:
                end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base) - begin_s)
        claimed_s = whole_s(container)
        return end_s if claimed_s is None else min(end_s, claimed_s)


def _check_length(container: av.container.InputContainer, choice: Choice, reached_s: float) -> None:
    """Refuse what is visibly cut off: half a meeting must not pass for a whole one.

    Raises:
        InvalidAudio
    """
    stated = [end_s for stream in choice.heard if (end_s := stated_s(container, stream)) is not None]
    if stated and reached_s < 0.98 * max(stated) - 1.0:
        raise InvalidAudio(
            f"The file is truncated: its header promises {max(stated):.1f} s, but only {reached_s:.1f} s of sound are "
            "there. Send the whole file, or export what is left as a file of its own."
        )


def _unread(recording: OpenRecording, link: Link, reader: Reader, start_s: float, end_s: float) -> list[Loss]:
    """What of a container belongs to no packet, if it is more than headers, an index or a tag."""
    size_bytes = link.end - link.start
    demuxers = set(link.demuxers.split(","))
    if reader.last_byte == 0 or _ends_with_tag(recording, link, reader):
        return []
    if demuxers <= COUNTED:
        unread_bytes = reader.unread_bytes(size_bytes)
        if unread_bytes < max(MIN_UNREAD_BYTES, UNREAD_SHARE * size_bytes):
            return []
        seconds = unread_bytes * (end_s - start_s) / max(1, size_bytes - unread_bytes)
        return [Loss(LossKind.SKIPPED, start_s, seconds, size_bytes=unread_bytes, what="somewhere behind")]
    unread_bytes = size_bytes - reader.last_byte
    least = 0 if reader.is_broken else max(MIN_TRAILING_BYTES, TRAILING_SHARE * size_bytes)
    if unread_bytes <= least or not (reader.is_broken or demuxers <= READ_TO_THE_END):
        return []
    seconds = unread_bytes * (end_s - start_s) / reader.last_byte
    return [Loss(LossKind.BROKEN_OFF, end_s, seconds, size_bytes=unread_bytes)]


def _ends_with_tag(recording: OpenRecording, link: Link, reader: Reader) -> bool:
    """Whether there is a tag behind the last packet; the one of APE (with its footer) may be as long as a picture."""
    behind = recording.peek(16, link.start + reader.last_byte)
    return behind.startswith(TAGS) or b"APETAGEX" in recording.peek(160, max(link.start, link.end - 160))
