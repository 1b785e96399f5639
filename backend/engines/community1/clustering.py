"""Which voices of a recording are the same person: clustering of speaker embeddings. Pure; knows no audio, no models.

Agglomerative clustering with average linkage on cosine distance, in two stages so that cost stays linear in the length
of the recording. Each block of embeddings is clustered on its own, tightly; what remains is merged through sums, which
is exact: for unit vectors the mean cosine distance between two clusters is 1 - mean_a · mean_b. Voices that were heard
side by side in one window are different people (cannot-link, as in Landini et al., "Bayesian HMM clustering of x-vector
sequences", and pyannote's constrained assignment), so clusters that often share a window are not merged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from backend.domain.transcript import SpeakerCount
from backend.domain.turns import runs

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClusteringOptions:
    """Distances are cosine distances, 0 to 2.

    Attributes:
        threshold: clusters further apart stay apart; 0.55 to 0.65 do well, equal error of the embedding is at 0.64.
        tight_threshold: the same for the first stage, low enough to never join two people.
        max_shared: two clusters that share more than this part of the smaller one's windows are different people.
        block_size: embeddings clustered at once in the first stage.
        block_clusters: clusters that a block may leave to the second stage, whose cost is the square of their number.
        min_speaker_s: a cluster with less speech is no speaker, unless the caller asks for more speakers ...
        min_share: ... or it has this share of all speech (what counts in short recordings).
        stray_share: nor is one with less than this share (what counts in long ones, where strays add up).
        strange: a glimpse counts as an unknown voice if its similarity to every known voice is below this fraction of
            the similarity that the voice's own glimpses usually reach. In read speech that is a cosine of 0.75 (1 %
            have less than 0.45); 1 % have more than 0.28 with another voice. Strange glimpses are grouped by the same
            rule.
        strange_run: this many strange glimpses in a row are a missed voice.
    """

    threshold: float = 0.61
    tight_threshold: float = 0.3
    max_shared: float = 0.3
    block_size: int = 800
    block_clusters: int = 60
    min_speaker_s: float = 1.5
    min_share: float = 0.02
    stray_share: float = 0.001
    strange: float = 0.5
    strange_run: int = 3


def find_speakers(
    embeddings: Floats,
    windows: Ints,
    seconds: Floats,
    count: SpeakerCount,
    options: ClusteringOptions | None = None,
    check: Callable[[], None] = lambda: None,
) -> Floats:
    """The mean voice of each speaker.

    Args:
        embeddings: (n, 256), L2-normalised.
        windows: (n,) the window each embedding comes from, ascending.
        seconds: (n,) how much speech it stands for.
        count: bounds on the number of speakers. They are kept wherever there are embeddings enough.
        check: called many times a second; an exception it raises ends the search.

    Returns:
        (n_speakers, 256) L2-normalised; empty if there are no embeddings. The same input gives the same output.
    """
    if len(embeddings) == 0:
        return np.zeros((0, embeddings.shape[1] if embeddings.ndim == 2 else 0), dtype=np.float32)
    options = options or ClusteringOptions()
    least, most = bounds(count)
    sums, total_s = _cluster(embeddings, windows, seconds, count, options, check)
    kept = _solid(total_s, options)
    if len(kept) < least or len(kept) > most:
        kept = np.sort(np.argsort(-total_s, kind="stable")[: max(least, min(most, len(kept)))])
    return _unit(sums[kept])


def find_missed(
    voices: Floats,
    glimpses: Floats,
    at_s: Floats,
    hop_s: float,
    most: int,
    options: ClusteringOptions | None = None,
    check: Callable[[], None] = lambda: None,
) -> Floats:
    """The voices of stretches that sound like none of the known ones: people who say one or two sentences.

    Speech that segmentation takes for one person gets one embedding, so a person who talks briefly between two others
    may have no embedding alone and form no cluster. Glimpses are short enough to contain a single voice.

    Args:
        voices: (n_speakers, 256), L2-normalised.
        glimpses: (n, 256), L2-normalised.
        at_s: (n,) where they are, ascending.
        hop_s: the distance between glimpses during speech.
        most: the largest total number of speakers, known ones included.
        check: called many times a second; what it raises ends the search.

    Returns:
        (n_missed, 256) L2-normalised, those with most speech first.
    """
    nobody = np.zeros((0, voices.shape[1]), dtype=np.float32)
    options = options or ClusteringOptions()
    if len(voices) == 0 or len(voices) >= most or len(glimpses) < options.strange_run:
        return nobody
    fit = glimpses @ voices.T
    strange = _strange(fit, options.strange)
    breaks = np.flatnonzero(np.diff(at_s) > 1.5 * hop_s) + 1
    lasting = [
        moment
        for talk in np.split(np.arange(len(glimpses)), breaks)
        for start, stop in runs(strange[talk])
        if stop - start >= options.strange_run
        for moment in talk[start:stop]
    ]
    if not lasting:
        return nobody
    alike = float(np.median(fit.max(axis=1))) ** 2  # what two glimpses have in common that deviate from one voice
    options = replace(options, threshold=1 - options.strange * alike)
    seconds = np.full(len(lasting), hop_s, dtype=np.float32)
    sums, total_s = _cluster(glimpses[lasting], np.array(lasting), seconds, SpeakerCount(), options, check)
    needed_s = hop_s * max(options.strange_run, options.stray_share * len(glimpses))
    order = np.argsort(-total_s, kind="stable")[: most - len(voices)]
    return _unit(sums[order[total_s[order] > needed_s - hop_s / 2]])


def _strange(fit: Floats, part: float) -> NDArray[np.bool_]:
    """(n,) which glimpses are like no voice; fit is (n, n_speakers) cosines."""
    most_like = fit.argmax(axis=1)
    usual = np.zeros(fit.shape[1])
    for voice in np.unique(most_like):
        usual[voice] = np.median(fit[most_like == voice, voice])
    strange: NDArray[np.bool_] = np.all(fit < part * usual, axis=1)
    return strange


def assign(embeddings: Floats, windows: Ints, speakers: Floats) -> Ints:
    """(n,) the speaker of each embedding, or -1: one to one inside a window, maximising total cosine similarity."""
    from scipy.optimize import linear_sum_assignment

    labels = np.full(len(embeddings), -1, dtype=np.int64)
    if len(embeddings) == 0 or len(speakers) == 0:
        return labels
    similarity = embeddings @ speakers.T
    edges = np.flatnonzero(np.diff(windows, prepend=-1, append=-1))
    for start, stop in pairwise(edges):
        rows, columns = linear_sum_assignment(similarity[start:stop], maximize=True)
        labels[start + rows] = columns
    return labels


def warm() -> None:
    """Import what takes a third of a second, so that no recording waits for it."""
    import scipy.cluster.hierarchy
    import scipy.optimize
    import scipy.sparse  # noqa: F401


def bounds(count: SpeakerCount) -> tuple[int, int]:
    """Least and most speakers; an exact number is both."""
    if count.exact is not None:
        return count.exact, count.exact
    least = count.minimum or 1
    return least, max(least, count.maximum or 1_000_000)


def _cluster(
    embeddings: Floats,
    windows: Ints,
    seconds: Floats,
    count: SpeakerCount,
    options: ClusteringOptions,
    check: Callable[[], None],
) -> tuple[Doubles, Doubles]:
    """Sum of the embeddings of each cluster, (k, 256), weighted by their seconds, and the sum of these, (k,)."""
    least, most = bounds(count)
    small = _tight_clusters(embeddings, options, least, check)
    merger = _Merger(embeddings, windows, seconds, small, options)
    merges, distances = merger.run(check)
    labels = _choose_cut(merges, distances, merger.seconds, least, most, options)
    sums = np.zeros((int(labels.max()) + 1, embeddings.shape[1]))
    np.add.at(sums, labels, merger.sums)
    return sums, np.bincount(labels, merger.seconds).astype(np.float64)


def _tight_clusters(embeddings: Floats, options: ClusteringOptions, least: int, check: Callable[[], None]) -> Ints:
    """(n,) labels of small clusters that surely are one voice each; in every block at least `least` of them."""
    from scipy.cluster.hierarchy import fcluster, linkage

    labels = np.zeros(len(embeddings), dtype=np.int64)
    n_labels = 0
    for start in range(0, len(embeddings), options.block_size):
        check()
        block = embeddings[start : start + options.block_size]
        own = np.zeros(len(block), dtype=np.int64)
        if len(block) > 1:
            tree = linkage(np.asarray(block, dtype=np.float64), "average", metric="cosine")
            own = fcluster(tree, _tight_cut(tree[:, 2], options, least), "distance").astype(np.int64) - 1
        labels[start : start + options.block_size] = own + n_labels
        n_labels += int(own.max()) + 1
    return labels


def _tight_cut(heights: Doubles, options: ClusteringOptions, least: int) -> float:
    """Where to cut the tree of a block: tightly, but with no more than `block_clusters` and no fewer than `least`."""
    cut = options.tight_threshold
    if len(heights) >= options.block_clusters:
        cut = max(cut, float(heights[-options.block_clusters]))
    if least > 1:
        cut = min(cut, float(heights[-min(least - 1, len(heights))]) - 1e-9)
    return cut


class _Merger:
    """Average linkage over the small clusters, weighted by speech, with the cannot-link rule. Merges down to one."""

    def __init__(
        self, embeddings: Floats, windows: Ints, seconds: Floats, labels: Ints, options: ClusteringOptions
    ) -> None:
        n_clusters = int(labels.max()) + 1
        self._options = options
        self.sums = np.zeros((n_clusters, embeddings.shape[1]))
        np.add.at(self.sums, labels, embeddings.astype(np.float64) * seconds[:, None])
        self.seconds = np.bincount(labels, seconds, n_clusters).astype(np.float64)
        self._shared = _shared_windows(labels, windows, n_clusters)

    def run(self, check: Callable[[], None]) -> tuple[list[tuple[int, int]], list[float]]:
        """Pairs (kept, absorbed) in order, and the distance of each, raised by 2 where the rule was broken."""
        sums, seconds, shared = self.sums.copy(), self.seconds.copy(), self._shared.copy()
        alive = np.ones(len(sums), dtype=np.bool_)
        cost = (
            1 - (sums @ sums.T) / np.outer(seconds, seconds) + 2.0 * self._forbidden(shared, np.diag(shared)[:, None])
        )
        np.fill_diagonal(cost, np.inf)
        merges, distances = [], []
        for _ in range(len(sums) - 1):
            check()
            kept, gone = sorted(int(i) for i in np.unravel_index(int(cost.argmin()), cost.shape))
            merges.append((kept, gone))
            distances.append(float(cost[kept, gone]))
            own = shared[kept, kept] + shared[gone, gone] - shared[kept, gone]
            for total in (sums, seconds, shared):
                total[kept] += total[gone]
            shared[:, kept] = shared[kept]
            shared[kept, kept] = own
            alive[gone] = False
            distance = 1 - (sums @ sums[kept]) / (seconds * seconds[kept])
            distance += 2.0 * self._forbidden(shared[kept], own, np.diag(shared))
            cost[gone], cost[:, gone] = np.inf, np.inf
            cost[kept] = np.where(alive & (np.arange(len(sums)) != kept), distance, np.inf)
            cost[:, kept] = cost[kept]
        return merges, distances

    def _forbidden(self, shared: Doubles, own: Doubles | float, others: Doubles | None = None) -> NDArray[np.bool_]:
        """Where two clusters share too many windows; `own` and `others` are how many windows each of them has."""
        fewer = np.minimum(own, np.diag(shared)[None, :] if others is None else others)
        return np.asarray(shared > self._options.max_shared * np.maximum(fewer, 1))


def _shared_windows(labels: Ints, windows: Ints, n_clusters: int) -> Doubles:
    """(k, k): in how many windows two clusters were both heard; the diagonal is a cluster's own windows."""
    from scipy.sparse import csr_array

    _, columns = np.unique(windows, return_inverse=True)
    heard = csr_array((np.ones(len(labels)), (labels, columns)), shape=(n_clusters, int(columns.max()) + 1))
    heard.data[:] = np.minimum(heard.data, 1)
    return np.asarray((heard @ heard.T).todense(), dtype=np.float64)


def _choose_cut(
    merges: list[tuple[int, int]],
    distances: list[float],
    seconds: Doubles,
    least: int,
    most: int,
    options: ClusteringOptions,
) -> Ints:
    """Labels (k,) of the small clusters after as many merges as threshold and bounds ask for."""
    natural = next((i for i, distance in enumerate(distances) if distance > options.threshold), len(distances))
    sizes, solid = seconds.copy(), [len(_solid(seconds, options))]
    for kept, gone in merges:
        sizes[kept], sizes[gone] = sizes[kept] + sizes[gone], 0
        solid.append(len(_solid(sizes, options)))
    steps = natural
    while steps > 0 and solid[steps] < least:
        steps -= 1
    if solid[steps] < least:  # not even at the finest cut: then the smallest clusters count too
        steps = max(0, min(natural, len(seconds) - least))
    while steps < len(merges) and solid[steps] > most:
        steps += 1
    return _labels_after(merges[:steps], len(seconds))


def _labels_after(merges: list[tuple[int, int]], n_clusters: int) -> Ints:
    owner = np.arange(n_clusters)
    for kept, gone in merges:
        owner[owner == gone] = kept
    return np.unique(owner, return_inverse=True)[1].astype(np.int64)


def _solid(seconds: Doubles, options: ClusteringOptions) -> Ints:
    """Indices of the clusters that have speech enough to be a speaker; the largest always is."""
    total = float(seconds.sum())
    least = max(options.min_speaker_s, options.stray_share * total)
    needed = min(least, options.min_share * total, float(seconds.max()))
    return np.flatnonzero(seconds >= max(needed, 1e-9))


def _unit(vectors: Doubles) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = (vectors / np.maximum(length, 1e-12)).astype(np.float32)
    return unit
