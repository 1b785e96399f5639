"""faster-whisper as its users call it: the library's plain and its batched decoding, to compare ours with."""

from __future__ import annotations

from collections.abc import Sequence

from backend.domain.transcript import Diarization, Segment, Transcription, Word
from backend.engines.audio.samples import Audio
from backend.engines.base import Progress, TranscribeOptions


class PlainWhisper:
    """The library's own decoding with its defaults; words are taken as they come.

    Args:
        model: a directory.
        threads: of one decoding.
        batched: eight chunks together, else one window after another with the last text as context.
    """

    needs_turns = False
    may_invent = False

    def __init__(self, model: str, threads: int, *, batched: bool) -> None:
        from faster_whisper import BatchedInferencePipeline, WhisperModel

        loaded = WhisperModel(model, device="cpu", compute_type="int8", cpu_threads=threads, local_files_only=True)
        self._pipeline = BatchedInferencePipeline(loaded) if batched else loaded
        self._options = {"batch_size": 8} if batched else {}
        self.name = f"faster-whisper's {'batched' if batched else 'plain'} decoding"

    def check(self, options: TranscribeOptions) -> None:
        """Takes every language."""

    def transcribe(
        self,
        audio: Audio,
        options: TranscribeOptions,
        diarization: Diarization | None,  # noqa: ARG002 - the protocol's signature
        progress: Progress,  # noqa: ARG002
    ) -> Transcription:
        heard, info = self._pipeline.transcribe(
            audio.read(), language=options.language, word_timestamps=True, vad_filter=True, **self._options
        )
        return Transcription(
            tuple(
                Segment(
                    segment.start,
                    segment.end,
                    segment.text.strip(),
                    tuple(Word(word.word, word.start, word.end, word.probability) for word in segment.words or ()),
                )
                for segment in heard
            ),
            info.language,
        )

    def transcribe_spans(
        self,
        audio: Audio,  # noqa: ARG002
        spans: Sequence[tuple[float, float]],
        options: TranscribeOptions,  # noqa: ARG002
        progress: Progress,  # noqa: ARG002
    ) -> list[tuple[Segment, ...]]:
        """Hears nothing twice."""
        return [()] * len(spans)
