"""Who spoke when, with pyannote's community-1 networks on ONNX Runtime: no torch, no token, nothing to download.

The method follows Plaquet & Bredin, "Powerset multi-class cross entropy loss for neural speaker diarization"
(Interspeech 2023): windows of 10 s are segmented into up to three local speakers, each gets an embedding, embeddings
are clustered, windows are overlapped and added. What is different here, and why it is fast: probabilities instead of
decisions are averaged, so windows may be 2 s apart; and the embedding network's trunk runs once over the recording, its
frames being pooled for every local speaker, where pyannote runs it once per window and local speaker.

Memory holds one chunk of audio, and 1.8 kB of probabilities per window.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backend.domain.transcript import Diarization, SpeakerCount
from backend.domain.turns import fill_pauses, heed_voices, hysteresis, insist, one_at_a_time, overlap_add, to_turns
from backend.engines import clustering
from backend.engines.audio import SAMPLE_RATE_HZ, Audio
from backend.engines.community1_models import EMBEDDING, PROJECTION, SEGMENTATION, find_model, open_session

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from backend.engines.base import Progress

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

WINDOW = 10 * SAMPLE_RATE_HZ
N_FRAMES, N_LOCAL = 589, 3
FRAME_STEP, FRAME_OFFSET = 270, 360  # samples: frame i covers [360 + 270·i, 630 + 270·i)
FRAME_S = FRAME_STEP / SAMPLE_RATE_HZ
TRUNK_STEP, TRUNK_FRAMES = 1280, 125  # the ResNet gives 125 frames of 80 ms for 10 s
BATCH = 8
# The local speakers in each powerset class: nobody, one of three, two of three.
POWERSET = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Tuning:
    """Found on read conversations, a telephone call and far-field meetings; the optimum is flat in all of them.

    Attributes:
        hop_s, fine_hop_s: distance of windows; the fine one for recordings shorter than `fine_below_s`.
        enter, keep: mean probability that starts a turn, and that continues it.
        faint: takes the place of `enter` where that finds nobody, or fewer than asked for: quiet speech has speakers.
        pause_s: pauses of one speaker, in which nobody else talks, belong to the turn up to this length.
        silence: a window without a louder sample than this (-80 dBFS) holds nobody; the network would amplify it.
        ramp_s: the outer part of a window counts less; the network has no context there.
        least_s: a local speaker with less activity is ignored.
        solo_s: with more time alone than this, only that time is embedded.
        clustered_s: embeddings of at least this much solo speech decide who the speakers are.
        glimpse_s, glimpse_hop_s: length and distance of the looks that check whose voice a stretch has.
        doubt: cosine by which another speaker's voice must fit better, to take a stretch over.
    """

    hop_s: float = 2.0
    fine_hop_s: float = 1.0
    fine_below_s: float = 180.0
    enter: float = 0.5
    keep: float = 0.45
    faint: float = 0.25
    pause_s: float = 1.5
    silence: float = 1e-4
    ramp_s: float = 1.0
    least_s: float = 0.2
    solo_s: float = 0.5
    clustered_s: float = 1.5
    glimpse_s: float = 1.5
    glimpse_hop_s: float = 0.5
    doubt: float = 0.25
    clustering: clustering.ClusteringOptions = field(default_factory=clustering.ClusteringOptions)


@dataclass(frozen=True, slots=True)
class VoicedDiarization:
    """A diarization and the mean voice of each of its speakers: label → (256,) float32, L2-normalised."""

    diarization: Diarization
    voices: Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class _Locals:
    """The local speakers of all windows, in order: which window and slot, seconds alone, embedding (n, 256)."""

    windows: Ints
    slots: Ints
    solo_s: Floats
    embeddings: Floats


@dataclass(frozen=True, slots=True)
class _Glimpses:
    """How a second and a half around an instant sounds: (n,) seconds, (n, 256) embeddings."""

    at_s: Floats
    embeddings: Floats


class Community1Diarizer:
    """`Diarizer` on pyannote community-1. Loading takes about a second; instances may be shared by threads."""

    name = "pyannote community-1 (onnx)"

    def __init__(
        self, *, models_dir: Path | None = None, threads: int | None = None, tuning: Tuning | None = None
    ) -> None:
        """Load both networks.

        Args:
            models_dir: holds segmentation.ort and embedding.ort; the moonshine-voice wheel is used if None.
            threads: used inside ONNX Runtime; the cores at hand if None.

        Raises:
            EngineUnavailable: the networks are missing or are not the expected ones.
        """
        threads = threads or len(os.sched_getaffinity(0))
        self._tuning = tuning or Tuning()
        segmentation, embedding = find_model(SEGMENTATION, models_dir), find_model(EMBEDDING, models_dir)
        self._segmentation = open_session(SEGMENTATION, segmentation, threads=threads)
        self._trunk = open_session(EMBEDDING, embedding, threads=threads)
        self._projection, self._bias = open_session(PROJECTION, embedding, threads=1).run(None, {})
        self._fbank = _fbank_function()

    def diarize(self, audio: Audio, speakers: SpeakerCount, progress: Progress) -> Diarization:
        """Who spoke when; see `diarize_with_voices`."""
        heard = self.diarize_with_voices(audio, speakers, progress)
        voices = {label: tuple(voice.tolist()) for label, voice in heard.voices.items()}
        return replace(heard.diarization, voices=voices)

    def diarize_with_voices(self, audio: Audio, speakers: SpeakerCount, progress: Progress) -> VoicedDiarization:
        """Who spoke when, and how each of them sounds.

        Args:
            speakers: kept exactly wherever the recording has that many stretches of speech to tell apart.
        """
        starts = _window_starts(audio.n_samples, self._tuning)
        activity = self._segment(audio, starts, partial(_between, progress, 0.0, 0.4))
        result = VoicedDiarization(Diarization(), {})
        for begun, enter in ((0.4, self._tuning.enter), (0.8, self._tuning.faint)):
            report = partial(_between, progress, begun, begun + 0.4)
            local, glimpses = self._embed(audio, starts, activity, enter, report)
            voices = self._find_voices(local, starts, speakers)
            found = self._turns(audio, starts, activity, local, glimpses, voices, enter, _asked_for(speakers))
            result = max(result, found, key=lambda each: len(each.voices))
            if len(result.voices) >= clustering.bounds(speakers)[0]:
                break
        progress(1.0)
        return result

    def _segment(self, audio: Audio, starts: Ints, progress: Callable[[float], None]) -> NDArray[np.uint8]:
        """(n_windows, 589, 3) probability that a local speaker talks, 255 is certain."""
        activity = np.zeros((len(starts), N_FRAMES, N_LOCAL), dtype=np.uint8)
        for first in range(0, len(starts), BATCH):
            batch = np.stack([_read(audio, int(start), WINDOW) for start in starts[first : first + BATCH]])
            loud = first + np.flatnonzero(np.abs(batch).max(axis=1) > self._tuning.silence)
            if len(loud):
                log_probabilities = self._segmentation.run(None, {"waveforms": batch[loud - first, None]})[0]
                talking = np.nan_to_num(np.exp(log_probabilities) @ POWERSET)
                activity[loud] = np.rint(255 * np.clip(talking, 0, 1))
            progress(min(1.0, (first + BATCH) / len(starts)))
        return activity

    def _embed(
        self,
        audio: Audio,
        starts: Ints,
        activity: NDArray[np.uint8],
        enter: float,
        progress: Callable[[float], None],
    ) -> tuple[_Locals, _Glimpses]:
        """Embed every local speaker, and every glimpse. The trunk runs on chunks of 10 s, only where somebody talks."""
        trunk = _Trunk(audio, self._trunk, self._fbank)
        rows: list[tuple[int, int, float]] = []
        pooled: list[Floats] = []
        seen_at_s: list[float] = []
        seen: list[Floats] = []
        for window, start in enumerate(starts):
            for at_s, mask in _glimpses_of(activity[window] > 255 * enter, window, starts, self._tuning):
                if (statistics := _pool(trunk.frames(int(start)), mask)) is not None:
                    seen_at_s.append(at_s)
                    seen.append(self._projection @ statistics + self._bias)
            for slot, solo_s, mask in _speakers_of(activity[window] > 255 * enter, self._tuning):
                statistics = _pool(trunk.frames(int(start)), mask)
                if statistics is not None:
                    rows.append((window, slot, solo_s))
                    pooled.append(self._projection @ statistics + self._bias)
            progress((window + 1) / len(starts))
        windows, slots, solo = np.array(rows, dtype=np.float64).reshape(-1, 3).T
        embeddings = self._normalised(pooled)
        local = _Locals(windows.astype(np.int64), slots.astype(np.int64), solo.astype(np.float32), embeddings)
        return local, _Glimpses(np.array(seen_at_s, dtype=np.float32), self._normalised(seen))

    def _normalised(self, embeddings: list[Floats]) -> Floats:
        stacked = np.array(embeddings, dtype=np.float32).reshape(len(embeddings), len(self._bias))
        stacked /= np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-12)
        return stacked

    def _find_voices(self, local: _Locals, starts: Ints, speakers: SpeakerCount) -> Floats:
        """(n_speakers, 256), from the embeddings of long solo speech; from shorter ones only if there are too few."""
        enough = max(2, clustering.bounds(speakers)[0])
        for needed_s in (self._tuning.clustered_s, self._tuning.solo_s, 0.0):
            used = local.solo_s >= needed_s
            if used.sum() >= enough:
                break
        hop_s = (starts[1] - starts[0]) / SAMPLE_RATE_HZ if len(starts) > 1 else WINDOW / SAMPLE_RATE_HZ
        seconds = np.maximum(local.solo_s[used], 0.1) * np.float32(hop_s * SAMPLE_RATE_HZ / WINDOW)
        return clustering.find_speakers(
            local.embeddings[used], local.windows[used], seconds, speakers, self._tuning.clustering
        )

    def _turns(
        self,
        audio: Audio,
        starts: Ints,
        activity: NDArray[np.uint8],
        local: _Locals,
        glimpses: _Glimpses,
        voices: Floats,
        enter: float,
        least: int,
    ) -> VoicedDiarization:
        """Give local speakers their voice, add up the windows, cut into turns; labels in order of appearance."""
        tuning, n_frames = self._tuning, max(1, -(-audio.n_samples // FRAME_STEP))
        owners = clustering.assign(local.embeddings, local.windows, voices)
        pieces = (
            (int(window), int(owner), activity[window, :, slot] * np.float32(1 / 255))
            for window, slot, owner in zip(local.windows, local.slots, owners, strict=True)
            if owner >= 0  # more local than global speakers: the least similar are left out
        )
        first_frames = np.rint(starts / FRAME_STEP).astype(np.int64)
        scores = overlap_add(pieces, first_frames, _ramp(tuning), n_frames, len(voices))
        active = hysteresis(scores, enter, enter * tuning.keep / tuning.enter)
        if len(voices) > 1 and len(glimpses.at_s):
            frames = np.rint((glimpses.at_s - FRAME_OFFSET / SAMPLE_RATE_HZ) / FRAME_S).astype(np.int64)
            fit = glimpses.embeddings @ voices.T
            active, scores = heed_voices(active, scores, frames, fit, tuning.doubt)
        active, scores = insist(active, scores, least)
        active = fill_pauses(active, round(tuning.pause_s / FRAME_S))
        heard = [int(i) for i in np.argsort(active.argmax(axis=0), kind="stable") if active[:, i].any()]
        labels = [f"SPEAKER_{number:02d}" for number in range(len(heard))]
        single = one_at_a_time(active[:, heard], scores[:, heard])
        place = (FRAME_S, FRAME_OFFSET / SAMPLE_RATE_HZ, audio.duration_s)
        diarization = Diarization(to_turns(active[:, heard], labels, *place), to_turns(single, labels, *place))
        present = {turn.speaker for turn in diarization.turns}
        return VoicedDiarization(
            diarization, {label: voices[i] for label, i in zip(labels, heard, strict=True) if label in present}
        )


class _Trunk:
    """Frames of the embedding network at any place of a recording; keeps the last two chunks of 10 s."""

    def __init__(self, audio: Audio, session: InferenceSession, fbank: Callable[[Floats], Floats]) -> None:
        self._audio, self._session, self._fbank = audio, session, fbank
        self._chunks: dict[int, Floats] = {}

    def frames(self, start: int) -> Floats:
        """(125, 2560) frames of the window that starts at this sample; fewer at the end of the recording."""
        first = round(start / TRUNK_STEP)
        chunk, offset = divmod(first, TRUNK_FRAMES)
        parts = [self._chunk(chunk)[offset:]]
        if offset:
            parts.append(self._chunk(chunk + 1)[:offset])
        return np.concatenate(parts)

    def _chunk(self, number: int) -> Floats:
        if number not in self._chunks:
            if len(self._chunks) > 1:
                del self._chunks[min(self._chunks)]
            self._chunks[number] = self._compute(number)
        return self._chunks[number]

    def _compute(self, number: int) -> Floats:
        n_samples = min(WINDOW, self._audio.n_samples - number * WINDOW)
        if n_samples <= 0:
            return np.zeros((0, 2560), dtype=np.float32)
        n_trunk = -(-n_samples // TRUNK_STEP)
        # 240 samples more than the hop: the last 25 ms frame of the chunk reaches beyond it.
        features = self._fbank(_read(self._audio, number * WINDOW, n_trunk * TRUNK_STEP + 240))
        features -= features[: max(1, n_samples // 160)].mean(axis=0)
        output: Floats = self._session.run(None, {"fbank": features[None]})[0]
        return np.ascontiguousarray(output[0].T)


def _asked_for(speakers: SpeakerCount) -> int:
    """How many speakers the caller says there are at least; 0 if nothing was said."""
    return speakers.exact or speakers.minimum or 0


def _between(progress: Progress, begin: float, end: float, done: float) -> None:
    progress(min(1.0, begin + (end - begin) * done))


def _window_starts(n_samples: int, tuning: Tuning) -> Ints:
    """First samples of the windows; the last window ends with the recording."""
    fine = n_samples < tuning.fine_below_s * SAMPLE_RATE_HZ
    hop = round((tuning.fine_hop_s if fine else tuning.hop_s) * SAMPLE_RATE_HZ)
    last = max(0, n_samples - WINDOW)
    return np.append(np.arange(0, last, hop), last).astype(np.int64)


def _read(audio: Audio, start: int, n_samples: int) -> Floats:
    """Samples, zeros beyond the end; whatever is not finite or out of range is mended."""
    samples = audio.read(start, start + n_samples)
    if not np.isfinite(samples).all():
        samples = np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0)
    samples = np.clip(samples, -1.0, 1.0)
    return np.pad(samples, (0, n_samples - len(samples)))


def _fbank_function() -> Callable[[Floats], Floats]:
    """Features as WeSpeaker trains on: 80 mel bins, 25 ms every 10 ms, Hamming, no dither, 16-bit scale."""
    import kaldi_native_fbank

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hamming"
    options.mel_opts.num_bins = 80
    options.use_energy = False

    def fbank(samples: Floats) -> Floats:
        computer = kaldi_native_fbank.OnlineFbank(options)
        computer.accept_waveform(SAMPLE_RATE_HZ, samples * 32768)
        computer.input_finished()
        return np.array([computer.get_frame(i) for i in range(computer.num_frames_ready)], dtype=np.float32)

    return fbank


def _speakers_of(active: NDArray[np.bool_], tuning: Tuning) -> Iterator[tuple[int, float, Floats]]:
    """Slot, seconds alone and trunk mask (125,) of each local speaker of one window; active is (589, 3)."""
    alone = active & (active.sum(axis=1, keepdims=True) == 1)
    edges = np.arange(TRUNK_FRAMES) * TRUNK_STEP // FRAME_STEP
    for slot in np.flatnonzero(active.sum(axis=0) * FRAME_S >= tuning.least_s):
        solo_s = float(alone[:, slot].sum() * FRAME_S)
        long_enough = solo_s >= tuning.solo_s
        mask = (alone if long_enough else active)[:, slot].astype(np.float32)
        share = np.add.reduceat(mask, edges) * np.float32(FRAME_STEP / TRUNK_STEP)
        yield int(slot), solo_s if long_enough else 0.0, share


def _glimpses_of(
    active: NDArray[np.bool_], window: int, starts: Ints, tuning: Tuning
) -> Iterator[tuple[float, Floats]]:
    """Instant and trunk mask (125,) of each glimpse near this window's middle in which mostly one person talks."""
    start_s, last = starts[window] / SAMPLE_RATE_HZ, len(starts) - 1
    middle_s = start_s + WINDOW / SAMPLE_RATE_HZ / 2
    hop_s = float(starts[min(window + 1, last)] - starts[max(0, window - 1)]) / SAMPLE_RATE_HZ / 2 or 10.0
    from_s = start_s if window == 0 else middle_s - hop_s / 2
    until_s = start_s + WINDOW / SAMPLE_RATE_HZ if window == last else middle_s + hop_s / 2
    alone = (active.sum(axis=1) == 1).astype(np.float32)
    edges = np.arange(TRUNK_FRAMES) * TRUNK_STEP // FRAME_STEP
    share = np.add.reduceat(alone, edges) * np.float32(FRAME_STEP / TRUNK_STEP)
    half = round(tuning.glimpse_s * SAMPLE_RATE_HZ / TRUNK_STEP / 2)
    first = int(np.ceil(from_s / tuning.glimpse_hop_s))
    for at_s in np.arange(first, until_s / tuning.glimpse_hop_s) * tuning.glimpse_hop_s:
        center = round((at_s - start_s) * SAMPLE_RATE_HZ / TRUNK_STEP)
        mask = np.zeros_like(share)
        span = slice(max(0, center - half), center + half + 1)
        mask[span] = share[span]
        if mask.sum() >= half:
            yield float(at_s), mask


def _ramp(tuning: Tuning) -> Floats:
    """(589,) weights of the frames of a window: 1, falling towards both ends."""
    rise = np.minimum(1, (np.arange(N_FRAMES) + 1) * FRAME_S / tuning.ramp_s)
    weights: Floats = np.minimum(rise, rise[::-1]).astype(np.float32)
    return weights


def _pool(frames: Floats, mask: Floats) -> Floats | None:
    """(5120,) weighted mean and deviation over (n, 2560) frames, as pyannote's StatsPool; None if no weight."""
    weights = mask[: len(frames)]
    total = float(weights.sum())
    if total < 1e-3:
        return None
    frames = frames[: len(weights)]
    mean = weights @ frames / total
    variance = np.maximum(weights @ (frames * frames) / total - mean * mean, 0)
    unbiased = total / max(total - float(weights @ weights) / total, 1e-8)
    pooled: Floats = np.concatenate([mean, np.sqrt(variance * min(unbiased, 1e4))])
    return pooled
