"""The embedded transcriber: Moonshine tiny-en as bundled in the moonshine-voice wheel; nothing to download.

Moonshine knows English and gives no word times, so it transcribes speaker turn by speaker turn.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from backend.domain.sentences import text_without_loops
from backend.domain.speakers import merge_turns
from backend.domain.transcript import Diarization, Segment, SpeakerTurn, Transcription
from backend.engines.audio import SAMPLE_RATE_HZ, Audio
from backend.engines.base import Progress, TranscribeOptions
from backend.engines.vad import speech_regions
from backend.errors import EngineUnavailable, InvalidInput

if TYPE_CHECKING:
    from moonshine_voice.transcriber import Transcriber as MoonshineModel

MAX_PIECE_S = 25.0
"""Longest piece given to the model at once. WER on 50 joined utterances: 11.6 % at 15 s, 11.1 at 20, 12.1 at 30."""
MAX_GAP_S = 1.0
PADDING_S = 0.15
MIN_PIECE_S = 0.2
LANGUAGE = "en"


class MoonshineTranscriber:
    """Moonshine tiny-en. The native handle is not re-entrant, hence the lock."""

    name = "moonshine tiny-en"
    needs_turns = True

    def __init__(self) -> None:
        self._model = _load()
        self._lock = threading.Lock()

    def check(self, options: TranscribeOptions) -> None:
        """Raises InvalidInput for any language but English."""
        if options.language not in (None, LANGUAGE):
            raise InvalidInput(
                f"The built-in Moonshine engine only knows English, not '{options.language}'. Fetch a Whisper model "
                "with `aperta models pull small` and set ASR_ENGINE=faster-whisper."
            )

    def transcribe(
        self, audio: Audio, options: TranscribeOptions, diarization: Diarization | None, progress: Progress
    ) -> Transcription:
        """One segment per merged speaker turn, labelled with the turn's speaker."""
        self.check(options)
        turns = diarization.exclusive if diarization else speech_regions(audio)
        pieces = list(_pieces(audio, turns))
        segments = []
        for piece, (start_s, end_s) in zip(pieces, _padded(pieces), strict=True):
            text = text_without_loops(self._text(audio, start_s, end_s))
            if text:
                segments.append(Segment(piece.start_s, piece.end_s, text, speaker=piece.speaker))
            progress(min(1.0, piece.end_s / audio.duration_s))
        return Transcription(tuple(segments), LANGUAGE if segments else None)

    def _text(self, audio: Audio, start_s: float, end_s: float) -> str:
        samples = audio.seconds(start_s, end_s).tolist()
        with self._lock:
            lines = self._model.transcribe_without_streaming(samples, SAMPLE_RATE_HZ).lines
        return " ".join(line.text.strip() for line in lines if line.text.strip())


def _load() -> MoonshineModel:
    try:
        from moonshine_voice.moonshine_api import ModelArch
        from moonshine_voice.transcriber import Transcriber
        from moonshine_voice.utils import get_model_path
    except (ImportError, OSError) as error:
        raise EngineUnavailable(
            f"The embedded engine cannot be loaded ({error}). Install it with `pip install moonshine-voice==0.0.71` "
            "(Linux, glibc 2.34 or newer)."
        ) from error
    # vad_threshold=0: the turns decide where to cut. The model's own VAD cuts mid-sentence: WER 18.1 instead of
    # 11.7 % on the same utterances.
    options = {"vad_threshold": "0", "vad_max_segment_duration": "60", "return_audio_data": "false"}
    return Transcriber(str(get_model_path("tiny-en")), ModelArch.TINY, options=options)


def _pieces(audio: Audio, turns: Iterable[SpeakerTurn]) -> Iterator[SpeakerTurn]:
    """Turns merged, and cut where they are longer than the model takes; slivers that hold no syllable are dropped."""
    for turn in merge_turns(turns, max_gap_s=MAX_GAP_S, max_length_s=MAX_PIECE_S):
        start_s = turn.start_s
        while turn.end_s - start_s > MAX_PIECE_S:
            cut_s = _quietest(audio, start_s + MAX_PIECE_S / 2, start_s + MAX_PIECE_S)
            yield SpeakerTurn(start_s, cut_s, turn.speaker)
            start_s = cut_s
        if turn.end_s - start_s >= MIN_PIECE_S:
            yield SpeakerTurn(start_s, turn.end_s, turn.speaker)


def _padded(pieces: Sequence[SpeakerTurn]) -> Iterator[tuple[float, float]]:
    """Each piece with a little of what surrounds it; neighbours share a pause, so no word is heard twice."""
    for number, piece in enumerate(pieces):
        before = piece.start_s - pieces[number - 1].end_s if number else PADDING_S * 2
        after = pieces[number + 1].start_s - piece.end_s if number + 1 < len(pieces) else PADDING_S * 2
        yield (
            piece.start_s - min(PADDING_S, max(0.0, before / 2)),
            piece.end_s + min(PADDING_S, max(0.0, after / 2)),
        )


def _quietest(audio: Audio, start_s: float, end_s: float) -> float:
    """Middle of the quietest tenth of a second: a pause between words, if there is one."""
    frame = SAMPLE_RATE_HZ // 10
    samples = audio.seconds(start_s, end_s)
    energy = np.square(samples[: len(samples) // frame * frame].reshape(-1, frame)).mean(axis=1)
    return start_s + (int(energy.argmin()) + 0.5) * frame / SAMPLE_RATE_HZ
