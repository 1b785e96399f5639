"""What of a recording was not heard, or not heard as it stands in the file, and the sentence that says so. Pure.

The answer names every loss with seconds: silence about one would make half a meeting pass for a whole one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class LossKind(StrEnum):
    """What happened to a part of the recording.

    Attributes:
        DAMAGED: packets could not be decoded; they count as silence.
        SKIPPED: bytes between packets could not be read; their time counts as silence where the file knows it.
        GAP: the file holds no packets for some time; it counts as silence.
        BROKEN_OFF: nothing behind this time could be read.
        TRACK: an audio track was not listened to.
        HEADER: the header states another length (`at_s`) than the file holds (`seconds`).
        CLOCK: the time stamps jump further than any recording lasts; the jump was left out.
    """

    DAMAGED = "damaged"
    SKIPPED = "skipped"
    GAP = "gap"
    BROKEN_OFF = "broken off"
    TRACK = "track"
    HEADER = "header"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Loss:
    """One loss.

    Attributes:
        at_s: where it begins, on the recording's time line.
        seconds: how much is missing; None: the file does not say.
        count: pieces of the same kind that are told together.
        size_bytes: how much of the file it is.
        what: words about it, such as the name of a track and why it was left out.
    """

    kind: LossKind
    at_s: float = 0.0
    seconds: float | None = None
    count: int = 1
    size_bytes: int = 0
    what: str = ""

    @property
    def sentence(self) -> str:
        """The loss in one sentence, with seconds."""
        return _SENTENCES[self.kind](self)


def _damaged(loss: Loss) -> str:
    pieces = "1 damaged piece" if loss.count == 1 else f"{loss.count} damaged pieces"
    return (
        f"{pieces} of the recording, {_seconds(loss)} from {loss.at_s:.1f} s on, could not be decoded: silence there."
    )


def _skipped(loss: Loss) -> str:
    places = "" if loss.count == 1 else f" in {loss.count} places, the first"
    return (
        f"{loss.size_bytes} bytes of the recording{places} {loss.what or 'at'} {loss.at_s:.1f} s, about "
        f"{_seconds(loss)}, could not be read."
    )


def _gap(loss: Loss) -> str:
    places = "" if loss.count == 1 else f", {loss.count} stretches together"
    return f"The file holds no sound for {_seconds(loss)} from {loss.at_s:.1f} s on{places}: silence there."


def _broken_off(loss: Loss) -> str:
    return (
        f"The file could not be read beyond {loss.at_s:.1f} s: {_seconds(loss)} ({loss.size_bytes} bytes) behind it "
        "are missing. Export the recording again if it is longer."
    )


def _track(loss: Loss) -> str:
    length = "" if loss.seconds is None else f" ({loss.seconds:.1f} s)"
    return f"Audio track {loss.what}{length}."


def _header(loss: Loss) -> str:
    return (
        f"The file's header states {loss.at_s:.1f} s of sound, the file holds {loss.seconds or 0.0:.1f} s: {loss.what}."
    )


def _clock(loss: Loss) -> str:
    return f"The time stamps of the recording jump by {_seconds(loss)} at {loss.at_s:.1f} s; the jump was left out."


_SENTENCES = {
    LossKind.DAMAGED: _damaged,
    LossKind.SKIPPED: _skipped,
    LossKind.GAP: _gap,
    LossKind.BROKEN_OFF: _broken_off,
    LossKind.TRACK: _track,
    LossKind.HEADER: _header,
    LossKind.CLOCK: _clock,
}


def _seconds(loss: Loss) -> str:
    return "an unknown length" if loss.seconds is None else f"{loss.seconds:.1f} s"
