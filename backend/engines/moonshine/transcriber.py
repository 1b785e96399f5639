"""The embedded transcriber: Moonshine tiny-en out of the moonshine-voice wheel; nothing to download.

Moonshine knows English and pieces of up to half a minute; they are cut where a pause or a change of speakers is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

import numpy as np

from backend.domain.attribution import merge_turns
from backend.domain.transcript import Diarization, Segment, SpeakerTurn, Transcription, Word
from backend.engines.audio.samples import SAMPLE_RATE_HZ, Audio
from backend.engines.audio.vad import speech_regions
from backend.engines.base import Progress, TranscribeOptions
from backend.engines.moonshine.model import MoonshineModel
from backend.engines.progress import TICK_S, Abandoned
from backend.errors import InvalidInput

MAX_PIECE_S = 25.0
"""Longest piece given to the model at once. WER on 50 joined utterances: 11.6 % at 15 s, 11.1 at 20, 12.1 at 30."""
MAX_GAP_S = 1.0
TOUCHING_S = 0.0
"""Turns of two speakers with no more silence between them are heard as one piece. WER and cpWER on ten composed
conversations: 14.4 and 14.7 % at 0 s, 14.8 and 15.1 at 0.2, 14.3 and 15.1 if each turn is a piece."""
MIXED = "several"
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
        """One segment per piece, with the times of its words; who says them is left to attribution."""
        self.check(options)
        pieces = list(_pieces(audio, diarization.exclusive if diarization else speech_regions(audio, progress)))
        heard = self._hear(audio, list(_padded(pieces)), progress)
        segments = tuple(_segment(words) for words in heard if words)
        return Transcription(segments, LANGUAGE if segments else None)

    def transcribe_spans(
        self, audio: Audio, spans: Sequence[tuple[float, float]], options: TranscribeOptions, progress: Progress
    ) -> list[tuple[Segment, ...]]:
        """See the protocol."""
        self.check(options)
        heard = self._hear(audio, spans, progress)
        return [(_segment(words),) if words else () for words in heard]

    def _hear(self, audio: Audio, spans: Sequence[tuple[float, float]], progress: Progress) -> list[list[Word]]:
        """Words in each span. Spans of similar length share a batch, longest first."""
        order = sorted(range(len(spans)), key=lambda number: spans[number][0] - spans[number][1])
        batches = [order[first : first + BATCH] for first in range(0, len(order), BATCH)]

        found: list[list[Word]] = [[] for _ in spans]
        stopped = threading.Event()

        def check() -> None:
            if stopped.is_set():
                raise Abandoned

        def hear(batch: Sequence[int]) -> None:
            heard = self._model.transcribe([audio.seconds(*spans[number]) for number in batch], check)
            for number, words in zip(batch, heard, strict=True):
                found[number] = [_shifted(word, spans[number][0]) for word in words]

        with ThreadPoolExecutor(self._threads, "moonshine") as pool:
            try:
                _wait_for([pool.submit(hear, batch) for batch in batches], progress)
            except BaseException:
                stopped.set()
                pool.shutdown(cancel_futures=True)
                raise
        return found


def _wait_for(jobs: Sequence[Future[None]], progress: Progress) -> None:
    """Return when all are done; raises what one of them, or `progress`, raises."""
    pending = set(jobs)
    while pending:
        done, pending = wait(pending, TICK_S, FIRST_COMPLETED)
        for job in done:
            job.result()
        progress(1 - len(pending) / len(jobs))


def _segment(words: Sequence[Word]) -> Segment:
    text = "".join(word.text for word in words).strip()
    return Segment(words[0].start_s or 0.0, words[-1].end_s or 0.0, text, tuple(words))


def _shifted(word: Word, by_s: float) -> Word:
    start_s, end_s = word.start_s, word.end_s
    return replace(
        word,
        start_s=None if start_s is None else round(start_s + by_s, 3),
        end_s=None if end_s is None else round(end_s + by_s, 3),
    )


def _pieces(audio: Audio, turns: Iterable[SpeakerTurn]) -> Iterator[SpeakerTurn]:
    """Turns merged, and cut where they are longer than the model takes; slivers that hold no syllable are dropped."""
    for turn in _touching(merge_turns(turns, max_gap_s=MAX_GAP_S, max_length_s=MAX_PIECE_S)):
        start_s = turn.start_s
        while turn.end_s - start_s > MAX_PIECE_S:
            cut_s = _quietest(audio, start_s + MAX_PIECE_S / 2, start_s + MAX_PIECE_S)
            yield SpeakerTurn(start_s, cut_s, turn.speaker)
            start_s = cut_s
        if turn.end_s - start_s >= MIN_PIECE_S:
            yield SpeakerTurn(start_s, turn.end_s, turn.speaker)


def _touching(turns: Iterable[SpeakerTurn]) -> Iterator[SpeakerTurn]:
    """Turns joined where no silence is between them, so that no word at a change of speakers is cut in two."""
    joined: SpeakerTurn | None = None
    for turn in turns:
        if joined and turn.start_s - joined.end_s <= TOUCHING_S and turn.end_s - joined.start_s <= MAX_PIECE_S:
            joined = SpeakerTurn(joined.start_s, max(joined.end_s, turn.end_s), MIXED)
            continue
        if joined:
            yield joined
        joined = turn
    if joined:
        yield joined


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
