"""The embedded transcriber: Moonshine tiny-en out of the moonshine-voice wheel; nothing to download.

Moonshine knows English and gives no word times, so it transcribes speaker turn by speaker turn.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np

from backend.domain.attribution import merge_turns
from backend.domain.transcript import Diarization, Segment, SpeakerTurn, Transcription
from backend.domain.turns import full_spans
from backend.engines.audio.samples import SAMPLE_RATE_HZ, Audio
from backend.engines.audio.vad import speech_regions
from backend.engines.base import Progress, TranscribeOptions
from backend.engines.moonshine.model import MoonshineModel
from backend.engines.progress import TICK_S, Abandoned
from backend.errors import InvalidInput

MAX_PIECE_S = 25.0
"""Longest piece given to the model at once. WER on 50 joined utterances: 11.6 % at 15 s, 11.1 at 20, 12.1 at 30."""
MAX_GAP_S = 1.0
PADDING_S = 0.25
MIN_PIECE_S = 0.2
BATCH = 4
"""Pieces decoded together. Times real time per core: 50 one by one, 59 in twos, 71 in fours, 69 in eights."""
LANGUAGE = "en"


class MoonshineTranscriber:
    """Moonshine tiny-en.

    Args:
        threads: batches of pieces transcribed side by side, each on one core.
    """

    name = "moonshine tiny-en"
    needs_turns = True
    may_invent = True

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads
        self._model = MoonshineModel()

    def check(self, options: TranscribeOptions) -> None:
        """Raises InvalidInput for any language but English."""
        if options.language not in (None, LANGUAGE):
            raise InvalidInput(
                f"The built-in Moonshine engine only knows English, not '{options.language}'. Fetch a Whisper model "
                "with `aperta models pull small`."
            )

    def transcribe(
        self, audio: Audio, options: TranscribeOptions, diarization: Diarization | None, progress: Progress
    ) -> Transcription:
        """One segment per merged speaker turn, labelled with the turn's speaker."""
        self.check(options)
        pieces = list(_pieces(audio, diarization.exclusive if diarization else speech_regions(audio, progress)))
        texts = self._texts(audio, list(_padded(pieces)), progress)
        spans = full_spans(pieces, diarization.turns if diarization else ())
        segments = tuple(
            Segment(start_s, end_s, text, speaker=piece.speaker)
            for piece, (start_s, end_s), text in zip(pieces, spans, texts, strict=True)
            if text
        )
        return Transcription(segments, LANGUAGE if segments else None)

    def transcribe_spans(
        self, audio: Audio, spans: Sequence[tuple[float, float]], options: TranscribeOptions, progress: Progress
    ) -> list[tuple[Segment, ...]]:
        """See the protocol."""
        self.check(options)
        texts = self._texts(audio, spans, progress)
        return [(Segment(*span, text),) if text else () for span, text in zip(spans, texts, strict=True)]

    def _texts(self, audio: Audio, spans: Sequence[tuple[float, float]], progress: Progress) -> list[str]:
        """Text of each span. Spans of similar length share a batch, longest first."""
        order = sorted(range(len(spans)), key=lambda number: spans[number][0] - spans[number][1])
        batches = [order[first : first + BATCH] for first in range(0, len(order), BATCH)]

        texts = [""] * len(spans)
        stopped = threading.Event()

        def check() -> None:
            if stopped.is_set():
                raise Abandoned

        def hear(batch: Sequence[int]) -> None:
            heard = self._model.transcribe([audio.seconds(*spans[number]) for number in batch], check)
            for number, text in zip(batch, heard, strict=True):
                texts[number] = text

        with ThreadPoolExecutor(self._threads, "moonshine") as pool:
            try:
                _wait_for([pool.submit(hear, batch) for batch in batches], progress)
            except BaseException:
                stopped.set()
                pool.shutdown(cancel_futures=True)
                raise
        return texts


def _wait_for(jobs: Sequence[Future[None]], progress: Progress) -> None:
    """Return when all are done; raises what one of them, or `progress`, raises."""
    pending = set(jobs)
    while pending:
        done, pending = wait(pending, TICK_S, FIRST_COMPLETED)
        for job in done:
            job.result()
        progress(1 - len(pending) / len(jobs))


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
