"""Words are placed where the decoder looked and where there is sound."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from backend.engines.moonshine.alignment import FRAME_S, FRAME_SAMPLES, first_frames, placed_words, token_edges

HEADS = 4


def looking(*spans: tuple[int, int], n_frames: int) -> NDArray[np.float32]:
    """Attention that rests on one span of frames for each token."""
    rows = np.full((len(spans), HEADS, n_frames), 1e-3, np.float32)
    for row, (start, stop) in zip(rows, spans, strict=True):
        row[:, start:stop] = 1.0
    return rows / rows.sum(axis=2, keepdims=True)


def sound(*loud: tuple[int, int], n_frames: int, noise: float = 1e-4) -> NDArray[np.float32]:
    """A tone in these frames, in faint noise."""
    samples = np.random.default_rng(1).normal(0, noise, n_frames * FRAME_SAMPLES).astype(np.float32)
    for start, stop in loud:
        n = np.arange((stop - start) * FRAME_SAMPLES)
        samples[start * FRAME_SAMPLES : stop * FRAME_SAMPLES] += 0.3 * np.sin(n * 0.3).astype(np.float32)
    return samples


def frames(seconds: float | None) -> int:
    assert seconds is not None
    return round(seconds / FRAME_S)


def cheapest(cost: NDArray[np.float64]) -> float:
    """Cost of the best path, cell by cell."""
    best = np.full((cost.shape[0] + 1, cost.shape[1] + 1), np.inf)
    best[0, 0] = 0
    for row in range(cost.shape[0]):
        for frame in range(cost.shape[1]):
            best[row + 1, frame + 1] = cost[row, frame] + min(
                best[row, frame], best[row, frame + 1], best[row + 1, frame]
            )
    return float(best[-1, -1])


def test_tokens_begin_where_the_decoder_begins_to_look_at_them() -> None:
    edges = token_edges(looking((0, 20), (20, 45), (45, 60), n_frames=60))
    assert edges == pytest.approx([0, 20, 45, 60], abs=2)


@given(st.integers(1, 6), st.integers(6, 30), st.integers(0, 10_000))
def test_edges_rise_from_the_first_frame_to_the_last(n_rows: int, n_frames: int, seed: int) -> None:
    attention = np.random.default_rng(seed).random((n_rows, HEADS, n_frames), np.float32)
    edges = token_edges(attention)
    assert len(edges) == n_rows + 1 and edges[0] == 0 and edges[-1] == n_frames
    assert (np.diff(edges) >= 0).all()


@given(st.integers(2, 6), st.integers(6, 25), st.integers(0, 10_000))
def test_the_path_is_the_cheapest_one(n_rows: int, n_frames: int, seed: int) -> None:
    cost = np.random.default_rng(seed).random((n_rows, n_frames))
    starts = [*first_frames(cost.astype(np.float32)), n_frames - 1]
    # A path that enters row r at its first frame leaves the row before at that frame, or at the one before.
    stays = [cost[row, start : stop + 1].sum() for row, (start, stop) in enumerate(pairwise(starts))]
    shared = [cost[row, stop] for row, stop in enumerate(starts[1:-1]) if stop > starts[row]]
    assert sum(stays) - sum(shared) <= cheapest(cost) + 1e-4


def test_silence_around_a_word_is_not_part_of_it() -> None:
    attention = looking((20, 40), (70, 95), n_frames=120)
    first, second = placed_words(
        [b"\xe2\x96\x81yes", b"\xe2\x96\x81no"], [0.9, 0.8], attention, sound((20, 40), (70, 95), n_frames=120)
    )
    assert (frames(first.start_s), frames(first.end_s)) == (pytest.approx(20, abs=2), pytest.approx(40, abs=2))
    assert (frames(second.start_s), frames(second.end_s)) == (pytest.approx(70, abs=2), pytest.approx(95, abs=2))


def test_a_click_in_a_pause_does_not_lengthen_a_word() -> None:
    [word] = placed_words(
        [b"\xe2\x96\x81yes"], [0.9], looking((10, 30), n_frames=100), sound((10, 30), (70, 71), n_frames=100)
    )
    assert frames(word.end_s) == pytest.approx(30, abs=2)


def test_in_noise_that_hides_silence_a_word_stays_near_where_the_decoder_looked() -> None:
    noisy = np.random.default_rng(2).normal(0, 0.1, 300 * FRAME_SAMPLES).astype(np.float32)
    [word] = placed_words([b"\xe2\x96\x81yes"], [0.9], looking((140, 160), n_frames=300), noisy)
    assert 120 <= frames(word.start_s) <= 140 and 160 <= frames(word.end_s) <= 195


def test_tokens_without_a_blank_belong_to_the_word_before_and_its_probability_is_their_mean() -> None:
    tokens = [b"\xe2\x96\x81Mon", b"day", b".", b"\xe2\x96\x81Yes"]
    attention = looking((0, 10), (10, 20), (20, 30), (30, 60), n_frames=60)
    words = placed_words(tokens, [1.0, 0.8, 0.6, 0.5], attention, sound((0, 20), (30, 50), n_frames=60))
    assert [word.text for word in words] == [" Monday.", " Yes"]
    assert [word.probability for word in words] == [pytest.approx(0.8), pytest.approx(0.5)]


def test_a_letter_in_several_byte_tokens_is_put_together() -> None:
    tokens = [b"\xe2\x96\x81caf", b"\xc3", b"\xa9"]
    attention = looking((0, 10), (10, 15), (15, 20), n_frames=20)
    assert [word.text for word in placed_words(tokens, [1, 1, 1], attention, sound((0, 20), n_frames=20))] == [" café"]


def test_without_tokens_there_are_no_words_and_silence_is_no_error() -> None:
    assert placed_words([], [0.9], looking((0, 5), n_frames=5), np.zeros(5 * FRAME_SAMPLES, np.float32)) == []
    [word] = placed_words(
        [b"\xe2\x96\x81a"], [1.0], looking((0, 5), n_frames=5), np.zeros(5 * FRAME_SAMPLES, np.float32)
    )
    assert word.start_s is not None and word.end_s is not None and word.start_s <= word.end_s
