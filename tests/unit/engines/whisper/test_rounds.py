"""What a window leaves is decoded in the next round, and only that."""

from __future__ import annotations

import numpy as np

from backend.domain.transcript import Word
from backend.engines.progress import ignore_progress
from backend.engines.whisper.decoding import Heard, HeardText
from backend.engines.whisper.rounds import ROUNDS, HeardWindow, decode_in_rounds
from backend.engines.whisper.windows import Speech, Window


class Decoder:
    """Hears at most so many seconds of a window; notes the lengths of what it was given."""

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self.batches: list[list[float]] = []

    def decode(self, windows: list[np.ndarray]) -> list[Heard]:
        lengths = [len(samples) / 10 for samples in windows]
        self.batches.append(lengths)
        return [self._heard(min(length, self._most_s)) for length in lengths]

    def _heard(self, end_s: float) -> Heard:
        words = (Word(" so", 0.0, 0.4, 0.9), Word(" on", end_s - 0.4, end_s, 0.9))
        texts = (HeardText(0.0, end_s, "so on", words),) if end_s else ()
        return Heard(texts, end_s, 0.0, -0.1, ended=True)


def run(decoder: Decoder, windows: list[Window], batch_size: int = 8) -> list[HeardWindow]:
    speech = Speech([(window.start_s, window.end_s) for window in windows])

    def read(start_s: float, end_s: float) -> np.ndarray:
        return np.zeros(round((end_s - start_s) * 10), dtype=np.float32)

    return decode_in_rounds(windows, speech, read, decoder.decode, batch_size, ignore_progress)


WINDOWS = [Window(0.0, 20.0), Window(20.0, 28.0), Window(30.0, 50.0)]


def test_windows_that_are_heard_to_their_end_need_one_round() -> None:
    decoder = Decoder(most_s=30)
    assert [one.window for one in run(decoder, WINDOWS)] == WINDOWS
    assert decoder.batches == [[20, 8, 20]]


def test_what_is_left_goes_into_the_next_batch() -> None:
    decoder = Decoder(most_s=12)
    heard = run(decoder, WINDOWS)
    assert decoder.batches == [[20, 8, 20], [8, 8]]
    assert [one.window.start_s for one in heard] == [0.0, 12.0, 20.0, 30.0, 42.0]


def test_batches_are_no_larger_than_allowed() -> None:
    decoder = Decoder(most_s=12)
    run(decoder, WINDOWS, batch_size=2)
    assert [len(batch) for batch in decoder.batches] == [2, 1, 2]


def test_a_decoder_that_never_gets_far_ends() -> None:
    decoder = Decoder(most_s=1)
    run(decoder, [Window(0.0, 28.0)])
    assert len(decoder.batches) == ROUNDS


def test_a_window_without_text_is_not_tried_again() -> None:
    decoder = Decoder(most_s=0)
    run(decoder, WINDOWS)
    assert len(decoder.batches) == 1
