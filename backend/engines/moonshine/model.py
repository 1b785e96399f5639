"""Moonshine: pieces of speech to words with times, several pieces at a time.

The architecture is that of Jeffries et al., "Moonshine: Speech Recognition for Live Transcription and Voice Commands"
(2024, arXiv:2410.15608). The files are read from the installed moonshine-voice wheel; its own loop decodes one piece at
a time on one core, which costs more than twice as much, and has no word times without a further model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backend.domain.sentences import words_without_loops
from backend.domain.transcript import Word
from backend.engines.audio.samples import SAMPLE_RATE_HZ
from backend.engines.catalogue import get_embedded
from backend.engines.moonshine.alignment import placed_words
from backend.engines.moonshine.networks import Networks

Floats = NDArray[np.float32]

START, END = 1, 2
TOKENS_PER_S = 8.0
"""Where decoding gives up: fast speech has 5 to 6 tokens a second."""


@dataclass(slots=True)
class Decoded:
    """The tokens of one piece; `rows` and `probabilities` have one more entry if the decoder ended by itself.

    Attributes:
        rows: (n_heads, n_frames) float16 each: where the decoder looked while it chose a token.
    """

    tokens: list[int] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    rows: list[NDArray[np.float16]] = field(default_factory=list)


class MoonshineModel:
    """Moonshine tiny-en. Safe to call from several threads, each of which then keeps one core busy.

    Raises:
        EngineUnavailable: the wheel is missing, is of another version, or does not load.
    """

    def __init__(self) -> None:
        folder = get_embedded() / "assets" / "tiny-en"
        self._networks = Networks(folder)
        self._tokens = read_tokens((folder / "tokenizer.bin").read_bytes())

    def transcribe(self, pieces: Sequence[Floats], check: Callable[[], None] = lambda: None) -> list[list[Word]]:
        """Words of each piece, with times in seconds from its start.

        Args:
            pieces: (n_samples,) float32, mono, 16 kHz, [-1, 1] each, up to about 30 s; of similar length, because all
                are decoded as long as the longest.
            check: called for every piece and every token; what it raises ends the work.
        """
        encoded = [self._encode(piece, check) for piece in pieces]
        limits = [math.ceil(len(piece) / SAMPLE_RATE_HZ * TOKENS_PER_S) + 2 for piece in pieces]
        decoded = self._decode(encoded, limits, check)
        return [
            self._words(found, piece, ended=len(found.tokens) < limit)
            for found, piece, limit in zip(decoded, pieces, limits, strict=True)
        ]

    def _encode(self, samples: Floats, check: Callable[[], None]) -> Floats:
        check()
        return self._networks.encode(samples)

    def _decode(self, encoded: Sequence[Floats], limits: Sequence[int], check: Callable[[], None]) -> list[Decoded]:
        """Greedy: the likeliest token each time, until every piece has ended or has as many tokens as its limit."""
        decoding = self._networks.decoding(encoded)
        pieces = [Decoded() for _ in encoded]
        running = list(range(len(pieces)))
        tokens = np.full(len(pieces), START, dtype=np.int64)
        while running:
            check()
            step = decoding.step(tokens)
            tokens = step.logits.argmax(axis=1)
            probabilities = _probabilities(step.logits, tokens)
            for number in running:
                piece, n_frames = pieces[number], len(encoded[number])
                piece.rows.append(step.attention[number, :, :n_frames].astype(np.float16))
                piece.probabilities.append(float(probabilities[number]))
                if tokens[number] != END:
                    piece.tokens.append(int(tokens[number]))
            running = [n for n in running if tokens[n] != END and len(pieces[n].tokens) < limits[n]]
        return pieces

    def _words(self, found: Decoded, samples: Floats, *, ended: bool) -> list[Word]:
        texts = [self._tokens[token] for token in found.tokens]
        words = placed_words(texts, found.probabilities, np.stack(found.rows), samples)
        return words_without_loops(words, len(samples) / SAMPLE_RATE_HZ, ended=ended)


def read_tokens(data: bytes) -> list[bytes]:
    """The vocabulary file: the length in one byte (from 128 on two), then the token's bytes. Markup is emptied."""
    tokens, position = [], 0
    while position < len(data):
        length, position = data[position], position + 1
        if length >= 128:
            length, position = data[position] * 128 + length - 128, position + 1
        token, position = data[position : position + length], position + length
        tokens.append(b"" if len(token) > 2 and token[:1] == b"<" and token[-1:] == b">" else token)
    return tokens


def _probabilities(logits: Floats, chosen: NDArray[np.int64]) -> Floats:
    """(n_pieces,): the softmax's share of the chosen tokens."""
    top = np.take_along_axis(logits, chosen[:, None], axis=1)
    shares: Floats = 1 / np.exp(logits - top).sum(axis=1)
    return shares
