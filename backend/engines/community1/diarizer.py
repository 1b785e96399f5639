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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backend.domain.transcript import Diarization, SpeakerCount
from backend.domain.turns import fill_pauses, heed_voices, hysteresis, insist, one_at_a_time, overlap_add, to_turns
from backend.engines.audio.samples import SAMPLE_RATE_HZ, Audio
from backend.engines.community1 import clustering
from backend.engines.community1.embedding import VoiceNetwork
from backend.engines.community1.observations import Heard, Locals, Windows, listen
from backend.engines.community1.segmentation import SegmentationNetwork
from backend.engines.community1.windows import FRAME_OFFSET, FRAME_S, FRAME_STEP, Floats, Tuning, ramp, window_starts
from backend.engines.progress import Progress


@dataclass(frozen=True, slots=True)
class VoicedDiarization:
    """A diarization and the mean voice of each of its speakers: label → (256,) float32, L2-normalised."""

    diarization: Diarization
    voices: Mapping[str, Floats]


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
        self._segmentation = SegmentationNetwork(models_dir, threads=threads)
        self._voices = VoiceNetwork(models_dir, threads=threads)
        clustering.warm()

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
        starts = window_starts(audio.n_samples, self._tuning)
        segmented = partial(_between, progress, 0.0, 0.4)
        windows = Windows(starts, self._segmentation.activity(audio, starts, self._tuning.silence, segmented))
        result = VoicedDiarization(Diarization(), {})
        for begun, enter in ((0.4, self._tuning.enter), (0.8, self._tuning.faint)):
            embedded = partial(_between, progress, begun, begun + 0.4)
            heard = listen(self._voices, audio, windows, enter, self._tuning, embedded)
            still = partial(embedded, 1.0)
            voices = self._find_voices(heard, speakers, still)
            found = self._turns(audio, heard, voices, _asked_for(speakers), still)
            result = max(result, found, key=lambda each: len(each.voices))
            if len(result.voices) >= clustering.bounds(speakers)[0]:
                break
        progress(1.0)
        return result

    def _find_voices(self, heard: Heard, speakers: SpeakerCount, check: Callable[[], None]) -> Floats:
        """(n_speakers, 256): what clustering finds, and the voices that it missed."""
        least, most = clustering.bounds(speakers)
        known = self._cluster(heard.local, SpeakerCount(maximum=most), check)
        glimpses, hop_s = heard.glimpses, self._tuning.glimpse_hop_s
        missed = clustering.find_missed(
            known, glimpses.embeddings, glimpses.at_s, hop_s, most, self._tuning.clustering, check
        )
        voices = np.concatenate([known, missed])
        return voices if len(voices) >= least else self._cluster(heard.local, speakers, check)

    def _cluster(self, local: Locals, speakers: SpeakerCount, check: Callable[[], None]) -> Floats:
        """(n_speakers, 256), from long solo speech of one person; from other speech only if there is too little."""
        enough = max(2, clustering.bounds(speakers)[0])
        long_s, short_s, coherent = self._tuning.clustered_s, self._tuning.solo_s, self._tuning.coherent
        for needed_s, least in ((long_s, coherent), (long_s, -1.0), (short_s, -1.0), (0.0, -1.0)):
            used = (local.solo_s >= needed_s) & (local.coherence >= least)
            if used.sum() >= enough:
                break
        return clustering.find_speakers(
            local.embeddings[used], local.windows[used], local.own_s[used], speakers, self._tuning.clustering, check
        )

    def _turns(
        self, audio: Audio, heard: Heard, voices: Floats, least: int, check: Callable[[], None]
    ) -> VoicedDiarization:
        """Add up who talks, let glimpses correct it, and cut it into turns; labels in order of appearance."""
        active, scores = self._add_up(audio, heard, voices, check)
        if len(voices) > 1 and len(heard.glimpses.at_s):
            frames = np.rint((heard.glimpses.at_s - FRAME_OFFSET / SAMPLE_RATE_HZ) / FRAME_S).astype(np.int64)
            fit = heard.glimpses.embeddings @ voices.T
            active, scores = heed_voices(active, scores, frames, fit, self._tuning.doubt)
            check()
        active, scores = insist(active, scores, least)
        active = fill_pauses(active, round(self._tuning.pause_s / FRAME_S))
        check()
        present = [int(i) for i in np.argsort(active.argmax(axis=0), kind="stable") if active[:, i].any()]
        labels = [f"SPEAKER_{number:02d}" for number in range(len(present))]
        single = one_at_a_time(active[:, present], scores[:, present])
        place = (FRAME_S, FRAME_OFFSET / SAMPLE_RATE_HZ, audio.duration_s)
        diarization = Diarization(to_turns(active[:, present], labels, *place), to_turns(single, labels, *place))
        talking = {turn.speaker for turn in diarization.turns}
        return VoicedDiarization(
            diarization, {label: voices[i] for label, i in zip(labels, present, strict=True) if label in talking}
        )

    def _add_up(
        self, audio: Audio, heard: Heard, voices: Floats, check: Callable[[], None]
    ) -> tuple[NDArray[np.bool_], Floats]:
        """(n_frames, n_speakers) who talks and how surely: local speakers get their voice, windows are added up."""
        local, activity = heard.local, heard.windows.activity
        owners = clustering.assign(local.embeddings, local.windows, voices)
        check()
        pieces = (
            (int(window), int(owner), activity[window, :, slot] * np.float32(1 / 255))
            for window, slot, owner in zip(local.windows, local.slots, owners, strict=True)
            if owner >= 0  # more local than global speakers: the least similar are left out
        )
        first_frames = np.rint(heard.windows.starts / FRAME_STEP).astype(np.int64)
        n_frames = max(1, -(-audio.n_samples // FRAME_STEP))
        scores = overlap_add(pieces, first_frames, ramp(self._tuning), n_frames, len(voices))
        check()
        keep = heard.enter * self._tuning.keep / self._tuning.enter
        return hysteresis(scores, heard.enter, keep), scores


def _asked_for(speakers: SpeakerCount) -> int:
    """How many speakers the caller says there are at least; 0 if nothing was said."""
    return speakers.exact or speakers.minimum or 0


def _between(progress: Progress, begin: float, end: float, done: float) -> None:
    progress(min(1.0, begin + (end - begin) * done))
