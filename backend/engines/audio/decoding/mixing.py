"""All channels of a stream mixed to one, so that everybody in them is heard.

FFmpeg's own downmix is made for films: channels of opposite polarity cancel, and what would be a subwoofer is left out.
Here every channel counts alike, and in each half second the polarities are chosen so that nothing cancels. No numpy:
see the program's docstring; the decisions look at a sample of the samples, and FFmpeg does the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from operator import mul
from typing import TypeAlias

import av

RATE_HZ, SAMPLE_BYTES = 16_000, 4
BLOCK_SAMPLES = 8_000
"""Polarities are chosen for half a second at a time."""
LOOKED_AT = 400
"""Samples of each channel in a block from which its polarity is chosen."""
CANCELLED, WHOLE = 0.3, 0.7
"""Parts of the channels' energy: a mix with less than the first has lost something, with more than the second not."""
BASS = 0.01
"""Energy of the differences between neighbours by energy of the samples, at 16 kHz: below it there is only bass, under
about 250 Hz (2 - 2 cos(2 pi f / 16000))."""

QUIET = 0.001
"""Level below which a channel holds nothing."""

Gains: TypeAlias = tuple[float, ...]
_TIME_BASE = Fraction(1, RATE_HZ)


class Mixer:
    """Mixes packed float frames at 16 kHz; a frame of one channel passes through."""

    def __init__(self) -> None:
        self._block = bytearray()
        self._layout: av.AudioLayout | None = None
        self._signs: tuple[int, ...] = ()
        self._voices: set[tuple[str, int]] = set()
        self._graphs: dict[tuple[str, Gains], _Pan] = {}

    def mix(self, frames: Sequence[av.AudioFrame]) -> list[av.AudioFrame]:
        """Take frames in, and give those back whose polarity is decided."""
        mixed = []
        for frame in frames:
            if self._layout is not None and frame.layout.name != self._layout.name:
                mixed += self.rest()
            channels = frame.layout.nb_channels
            if channels == 1:
                mixed.append(frame)
                continue
            self._layout = frame.layout
            self._block += memoryview(frame.planes[0])[: SAMPLE_BYTES * frame.samples * channels]
            if len(self._block) >= SAMPLE_BYTES * BLOCK_SAMPLES * channels:
                mixed += self.rest()
        return mixed

    def rest(self) -> list[av.AudioFrame]:
        """What is left to mix before a pause or the end."""
        layout, block, self._layout, self._block = self._layout, self._block, None, bytearray()
        if layout is None:
            return []
        samples = _Floats(block, layout.nb_channels)
        heard = [self._is_heard(layout, number, samples) for number in range(layout.nb_channels)]
        self._signs = choose_signs(_products(samples), self._signs)
        gain = 1.0 / max(1, sum(heard))
        gains = tuple(sign * gain if is_heard else 0.0 for sign, is_heard in zip(self._signs, heard, strict=True))
        pan = self._graphs.get((layout.name, gains))
        if pan is None:
            pan = self._graphs[layout.name, gains] = _Pan(layout, gains)
        return [pan.mix(block)]

    def _is_heard(self, layout: av.AudioLayout, number: int, samples: _Floats) -> bool:
        """Not so a subwoofer, until there is more than bass in it: converters give the name away freely."""
        if layout.channels[number].name != "LFE" or (layout.name, number) in self._voices:
            return True
        if not _has_voice(samples.channel(number)):
            return False
        self._voices.add((layout.name, number))
        return True


def choose_signs(products: Sequence[Sequence[float]], before: Sequence[int] = ()) -> tuple[int, ...]:
    """The polarity of each channel, 1 or -1, with which the sum of all loses nothing.

    Args:
        products: sum over the samples of the product of channels i and j, at [i][j]; the diagonal holds the energies.
        before: what was chosen last, which stays as long as nothing cancels.
    """
    count = len(products)
    plain = (1,) * count
    kept = tuple(before) if len(before) == count else plain
    energy = sum(products[number][number] for number in range(count))
    if energy <= 0.0 or _summed(products, plain) >= WHOLE * energy:
        return plain if energy > 0.0 else kept
    return kept if _summed(products, kept) >= CANCELLED * energy else _aligned(products)


def _aligned(products: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """From the loudest channel on, each with the sign that suits those before it."""
    order = sorted(range(len(products)), key=lambda number: -products[number][number])
    signs: dict[int, int] = {}
    for number in order:
        agreement = sum(sign * products[number][other] for other, sign in signs.items())
        signs[number] = -1 if agreement < 0 else 1
    return tuple(signs[number] for number in range(len(products)))


def _summed(products: Sequence[Sequence[float]], signs: Sequence[int]) -> float:
    """The energy of the sum of all channels with these signs."""
    return sum(
        one * other * value
        for one, row in zip(signs, products, strict=True)
        for other, value in zip(signs, row, strict=True)
    )


class _Floats:
    """Packed samples of several channels."""

    def __init__(self, packed: bytearray, channels: int) -> None:
        self.channels = channels
        self.n_samples = len(packed) // SAMPLE_BYTES // channels
        self._all: memoryview[float] = memoryview(packed).cast("f")

    def channel(self, number: int, step: int = 1) -> list[float]:
        return list(map(float, self._all[number :: self.channels * step]))


def _products(samples: _Floats) -> list[list[float]]:
    channels = samples.channels
    step = max(1, samples.n_samples // LOOKED_AT)
    looked_at = [samples.channel(number, step) for number in range(channels)]
    products = [[0.0] * channels for _ in range(channels)]
    for one in range(channels):
        for other in range(one, channels):
            products[one][other] = products[other][one] = _product(looked_at[one], looked_at[other])
    return products


def _has_voice(values: Sequence[float]) -> bool:
    differences = [after - before for before, after in pairwise(values)]
    energy = _product(values, values)
    return energy > QUIET**2 * len(values) and _product(differences, differences) > BASS * energy


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    value = sum(map(mul, one, other))
    return value if value - value == 0.0 else 0.0  # float recordings may hold what is no number


class _Pan:
    """FFmpeg's `pan` filter with fixed gains. It keeps nothing between frames."""

    def __init__(self, layout: av.AudioLayout, gains: Gains) -> None:
        self._layout = layout
        self._graph = av.filter.Graph()
        source = self._graph.add_abuffer(sample_rate=RATE_HZ, format="flt", layout=layout, time_base=_TIME_BASE)
        terms = "".join(f"{gain:+.9f}*c{number}" for number, gain in enumerate(gains))
        pan = self._graph.add("pan", f"mono|c0={terms.lstrip('+')}")
        packed = self._graph.add("aformat", "sample_fmts=flt")
        sink = self._graph.add("abuffersink")
        source.link_to(pan)
        pan.link_to(packed)
        packed.link_to(sink)
        self._graph.configure()

    def mix(self, samples: bytearray) -> av.AudioFrame:
        n_samples = len(samples) // SAMPLE_BYTES // self._layout.nb_channels
        frame = av.AudioFrame(format="flt", layout=self._layout, samples=n_samples, align=1)
        frame.sample_rate, frame.time_base = RATE_HZ, _TIME_BASE
        frame.planes[0].update(bytes(samples))
        self._graph.push(frame)
        mixed = self._graph.pull()
        assert isinstance(mixed, av.AudioFrame)
        return mixed
