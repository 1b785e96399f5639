"""Clustering of voices: speaker counts, determinism, blocks, the cannot-link rule."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage

from backend.domain.transcript import SpeakerCount
from backend.engines.community1.clustering import ClusteringOptions, assign, bounds, find_missed, find_speakers

UNKNOWN = SpeakerCount()


def voices(n_speakers: int, n_each: int, *, noise: float = 0.06, seed: int = 0):
    """Embeddings of speakers taking turns: (n, 64) unit vectors, window numbers, seconds, who it is."""
    random = np.random.default_rng(seed)
    means = np.linalg.qr(random.normal(size=(64, n_speakers)))[0].T
    who = np.tile(np.arange(n_speakers), n_each)
    vectors = means[who] + noise * random.normal(size=(len(who), 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.arange(len(who)), np.full(len(who), 2.0, dtype=np.float32), who


def same_partition(a, b) -> bool:
    return len(set(zip(a, b, strict=True))) == len(set(a)) == len(set(b))


@pytest.mark.parametrize("n_speakers", [1, 2, 5, 12])
def test_finds_the_speakers_there_are(n_speakers):
    vectors, windows, seconds, who = voices(n_speakers, 20)
    speakers = find_speakers(vectors, windows, seconds, UNKNOWN)
    assert speakers.shape == (n_speakers, 64)
    assert np.allclose(np.linalg.norm(speakers, axis=1), 1, atol=1e-5)
    assert same_partition(assign(vectors, windows, speakers), who)


@pytest.mark.parametrize("asked", [1, 2, 3, 4, 5, 9])
def test_exact_number_is_kept(asked):
    vectors, windows, seconds, _ = voices(3, 20)
    assert len(find_speakers(vectors, windows, seconds, SpeakerCount(exact=asked))) == asked


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (SpeakerCount(minimum=2), 4),
        (SpeakerCount(minimum=6), 6),
        (SpeakerCount(maximum=9), 4),
        (SpeakerCount(maximum=2), 2),
        (SpeakerCount(maximum=1), 1),
        (SpeakerCount(minimum=2, maximum=3), 3),
        (SpeakerCount(minimum=5, maximum=8), 5),
    ],
)
def test_minimum_and_maximum_are_kept(count, expected):
    vectors, windows, seconds, _ = voices(4, 20)
    assert len(find_speakers(vectors, windows, seconds, count)) == expected


def test_bounds_kept_across_blocks():
    vectors, windows, seconds, _ = voices(3, 60)
    options = ClusteringOptions(block_size=50)
    for asked in (1, 2, 3, 7):
        assert len(find_speakers(vectors, windows, seconds, SpeakerCount(exact=asked), options)) == asked


def test_never_more_speakers_than_voices_heard():
    vectors, windows, seconds, _ = voices(2, 1)
    assert len(find_speakers(vectors, windows, seconds, SpeakerCount(exact=5))) == 2


def test_nobody_heard_gives_no_speakers():
    empty = np.zeros((0, 256), dtype=np.float32)
    speakers = find_speakers(empty, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32), SpeakerCount(exact=2))
    assert speakers.shape == (0, 256)
    assert len(assign(empty, np.zeros(0, dtype=np.int64), speakers)) == 0


def test_identical_embeddings_are_one_speaker():
    vectors = np.tile(np.eye(1, 16, dtype=np.float32), (30, 1))
    assert len(find_speakers(vectors, np.arange(30), np.ones(30, dtype=np.float32), UNKNOWN)) == 1


def test_same_input_gives_same_output():
    vectors, windows, seconds, _ = voices(4, 40, noise=0.12)
    first, second = (find_speakers(vectors, windows, seconds, UNKNOWN) for _ in range(2))
    assert np.array_equal(first, second)


def test_blocks_give_what_one_plain_clustering_gives():
    vectors, windows, seconds, _ = voices(5, 40, noise=0.08)
    plain = fcluster(linkage(vectors.astype(float), "average", metric="cosine"), 0.61, "distance")
    for block_size in (17, 60, 1000):
        speakers = find_speakers(vectors, windows, seconds, UNKNOWN, ClusteringOptions(block_size=block_size))
        assert same_partition(assign(vectors, windows, speakers), plain)


def test_voices_heard_side_by_side_stay_apart_however_alike():
    random = np.random.default_rng(1)
    base = random.normal(size=64)
    means = np.stack([base, base + 0.9 * random.normal(size=64)])  # cosine distance about 0.3
    vectors = means[np.tile([0, 1], 30)] + 0.05 * random.normal(size=(60, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    seconds = np.full(60, 2.0, dtype=np.float32)
    tight = ClusteringOptions(tight_threshold=0.1)
    assert len(find_speakers(vectors, np.arange(60), seconds, UNKNOWN, tight)) == 1
    assert len(find_speakers(vectors, np.repeat(np.arange(30), 2), seconds, UNKNOWN, tight)) == 2


def test_a_stray_embedding_is_no_speaker_unless_asked_for():
    vectors, windows, seconds, _ = voices(3, 20)
    lone = (np.arange(len(vectors)) % 3 != 2) | (np.arange(len(vectors)) == 2)
    seconds = seconds.copy()
    seconds[2] = 0.3
    heard = vectors[lone], windows[lone], seconds[lone]
    assert len(find_speakers(*heard, UNKNOWN)) == 2
    assert len(find_speakers(*heard, SpeakerCount(exact=3))) == 3


def test_two_voices_of_one_window_are_two_speakers():
    speakers = np.eye(2, dtype=np.float32)
    both_like_the_first = np.array([[1.0, 0.0], [0.9, 0.44]], dtype=np.float32)
    assert assign(both_like_the_first, np.array([0, 0]), speakers).tolist() == [0, 1]
    assert assign(both_like_the_first, np.array([0, 1]), speakers).tolist() == [0, 0]


def test_a_third_voice_without_a_speaker_is_left_out():
    three = np.array([[1.0, 0.0], [0.0, 1.0], [0.7, 0.7]], dtype=np.float32)
    assert assign(three, np.zeros(3, dtype=np.int64), np.eye(2, dtype=np.float32)).tolist() == [0, 1, -1]


def test_exact_number_is_both_bounds():
    assert bounds(SpeakerCount(exact=3, minimum=1, maximum=9)) == (3, 3)
    assert bounds(SpeakerCount(minimum=4, maximum=2)) == (4, 4)
    assert bounds(UNKNOWN)[0] == 1


# Voices that clustering missed


def glimpses(*said: tuple[int, int], n_voices: int = 5):
    """People who talk in turn, each given as (who, how many glimpses): mean voices, (n, 64) glimpses, (n,) seconds."""
    random = np.random.default_rng(1)
    means = np.linalg.qr(random.normal(size=(64, n_voices)))[0].T.astype(np.float32)
    who = np.array([who for who, many in said for _ in range(many)], dtype=np.int64)
    heard = means[who] + 0.06 * random.normal(size=(len(who), 64))
    heard /= np.linalg.norm(heard, axis=1, keepdims=True)
    return means, heard.astype(np.float32), np.arange(len(who), dtype=np.float32) / 2


def missed(known: int, *said: tuple[int, int], most: int = 99, options: ClusteringOptions | None = None):
    """Who of the people is found beside the first few, who are known."""
    means, heard, at_s = glimpses(*said)
    found = find_missed(means[:known], heard, at_s, 0.5, most, options)
    fit = found @ means.T
    assert (fit.max(axis=1, initial=1) > 0.9).all()
    return fit.argmax(axis=1).tolist()


def test_one_sentence_in_a_voice_that_nobody_has_is_one_more_speaker():
    assert missed(2, (0, 20), (2, 5), (1, 20)) == [2]


def test_a_missed_voice_heard_twice_is_one_speaker():
    assert missed(2, (0, 20), (2, 4), (1, 20), (2, 4), (0, 9)) == [2]


def test_two_missed_voices_are_two_speakers_and_who_said_more_comes_first():
    assert missed(2, (0, 20), (2, 4), (3, 6), (1, 20)) == [3, 2]


def test_no_voice_is_missed_where_all_sound_like_somebody():
    assert missed(3, (0, 20), (2, 5), (1, 20)) == []


def test_a_moment_that_sounds_like_nobody_is_no_speaker():
    assert missed(2, (0, 20), (2, 2), (1, 20), (2, 2), (0, 9)) == []


def test_moments_before_and_after_a_silence_do_not_make_a_sentence():
    means, heard, at_s = glimpses((0, 20), (2, 4), (1, 20))
    at_s[22:] += 30
    assert len(find_missed(means[:2], heard, at_s, 0.5, 99)) == 0


@pytest.mark.parametrize(("most", "expected"), [(2, []), (3, [3]), (4, [3, 2])])
def test_no_more_voices_are_found_than_speakers_are_asked_for(most, expected):
    assert missed(2, (0, 20), (2, 4), (3, 6), (1, 20), most=most) == expected


def test_a_stray_sentence_in_a_long_recording_is_no_speaker():
    assert missed(2, (0, 2000), (2, 4), (1, 2000), options=ClusteringOptions(stray_share=0.01)) == []


@pytest.mark.parametrize("said", [(), ((0, 2),)])
def test_nothing_is_missed_where_next_to_nothing_is_said(said):
    assert missed(1, *said) == []


def test_nothing_is_missed_where_nobody_is_known():
    assert missed(0, (0, 20)) == []
