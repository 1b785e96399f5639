"""Decoding in rounds: a batch of windows, then a batch of what those windows left, until no speech is left.

Whisper often ends a window early, silently: it then says a last time before the window's end. Decoding only what is
left, in the next batch, keeps the speed of batches without losing what they leave out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from backend.engines.progress import Progress
from backend.engines.whisper.decoding import Heard
from backend.engines.whisper.windows import Speech, Window, rest_of

LEFT_S = 0.8
"""Seconds of speech behind a window's last word that are decoded again."""
ROUNDS = 3
LATER_WORK = 0.15
"""Share of the whole work that rounds after the first take, for the progress."""

Decode = Callable[[Sequence[NDArray[np.float32]]], list[Heard]]
Read = Callable[[float, float], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class HeardWindow:
    """A window and what was heard in it, as far as that holds."""

    window: Window
    heard: Heard


def decode_in_rounds(
    windows: Sequence[Window],
    speech: Speech,
    read: Read,
    decode: Decode,
    batch_size: int,
    progress: Progress,
    rounds: int = ROUNDS,
) -> list[HeardWindow]:
    """Decode windows, and what they leave, batch by batch.

    Args:
        windows: in time order.
        speech: where speech is.
        read: samples between two instants.
        decode: decodes a batch.
        batch_size: windows decoded together.
        progress: told the fraction done.
        rounds: how often what is left is decoded; 1 is never.

    Returns:
        In time order.
    """
    done: list[HeardWindow] = []
    waiting = list(windows)
    for round_number in range(rounds):
        left: list[Window] = []
        for share, batch in _batches(waiting, batch_size):
            heard = decode([read(window.start_s, window.end_s) for window in batch])
            for window, own in zip(batch, heard, strict=True):
                done.append(HeardWindow(window, own))
                if round_number + 1 < rounds and (rest := _rest(window, own, speech)):
                    left.append(rest)
            progress(_fraction(round_number, share))
        waiting = left
    return sorted(done, key=lambda one: one.window.start_s)


def _rest(window: Window, heard: Heard, speech: Speech) -> Window | None:
    words = [word for text in heard.texts for word in text.words]
    if not words and not heard.texts:
        return None
    done_s = max((word.end_s or 0.0 for word in words), default=heard.last_s)
    rest = rest_of(window, window.start_s + done_s, speech, LEFT_S)
    return rest if rest and rest.start_s > window.start_s + 0.5 else None


def _batches(windows: Sequence[Window], size: int) -> Iterator[tuple[float, Sequence[Window]]]:
    """Batches, each with the share of the windows that is done after it."""
    for first in range(0, len(windows), size):
        yield min(1.0, (first + size) / len(windows)), windows[first : first + size]


def _fraction(round_number: int, share: float) -> float:
    if round_number == 0:
        return (1 - LATER_WORK) * share
    return min(1.0, 1 - LATER_WORK + LATER_WORK * (round_number - 1 + share) / (ROUNDS - 1))
