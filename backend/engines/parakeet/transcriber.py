"""Parakeet TDT 0.6b v3 through onnx-asr: 25 European languages, word times and probabilities, on CPU or CUDA.

The model is a FastConformer encoder with a token-and-duration transducer: Xu et al., "Efficient Sequence Transduction
by Jointly Predicting Tokens and Durations" (2023, arXiv:2304.06795). The library turns samples into tokens with times;
cutting the recording and making words of tokens is done here. Never downloads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from backend.domain.transcript import Diarization, Segment, Transcription, Word
from backend.engines.audio.samples import Audio
from backend.engines.base import Progress, TranscribeOptions
from backend.engines.parakeet.windows import Window, windows_of
from backend.engines.parakeet.words import words_of
from backend.engines.progress import watched
from backend.errors import EngineUnavailable, InvalidInput

if TYPE_CHECKING:
    from onnx_asr.adapters import TimestampedResultsAsrAdapter

Device = Literal["auto", "cpu", "cuda"]

BATCH = 2
"""Windows decoded together on a CPU, where more gain little and each takes some hundred megabytes."""
CUDA_BATCH = 8
PAUSE_S = 1.0
"""A segment ends at a pause this long."""


class ParakeetTranscriber:
    """A loaded Parakeet. Safe to call from several threads.

    Args:
        path: a directory with config.json, vocab.txt, and the encoder and decoder, in full or as int8.
        name: what to call it.
        full: the float32 files; otherwise the int8 ones.
        languages: ISO 639-1 codes it knows, empty if that is not known; which of them is spoken it decides by itself.
        device: "auto" takes CUDA if ONNX Runtime has it.
        threads: CPU threads of one call.

    Raises:
        EngineUnavailable: the package, a file or the device is missing.
    """

    needs_turns = False
    may_invent = True

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        full: bool = False,
        languages: frozenset[str] = frozenset(),
        device: Device = "auto",
        threads: int = 1,
    ) -> None:
        self._model, on = _load(path, full, device, threads)
        self._batch = CUDA_BATCH if on == "cuda" else BATCH
        self._languages = languages
        self.name = f"parakeet {name} ({'float32' if full else 'int8'}, {on})"

    def check(self, options: TranscribeOptions) -> None:
        """Raises InvalidInput for a language that the model does not know."""
        if options.language and self._languages and options.language not in self._languages:
            raise InvalidInput(
                f"{self.name} knows {len(self._languages)} European languages, not {options.language!r}. "
                "`aperta models pull small` fetches a model that knows 99."
            )

    def transcribe(
        self,
        audio: Audio,
        options: TranscribeOptions,
        diarization: Diarization | None,  # noqa: ARG002 - the protocol's signature
        progress: Progress,
    ) -> Transcription:
        """Text with word times; the language is the caller's, because the model does not say which one it heard.

        Args:
            audio: read in windows of up to half a minute.
            diarization: not used, this engine places words by itself.

        Raises:
            InvalidInput: the model does not know the language.
        """
        self.check(options)
        words = self._words(audio, list(windows_of(audio, progress)), progress)
        segments = tuple(_segments([word for heard in words for word in heard]))
        return Transcription(segments, options.language if segments else None)

    def transcribe_spans(
        self, audio: Audio, spans: Sequence[tuple[float, float]], options: TranscribeOptions, progress: Progress
    ) -> list[tuple[Segment, ...]]:
        """See the protocol."""
        self.check(options)
        windows = [Window(start_s, min(end_s, audio.duration_s)) for start_s, end_s in spans]
        return [tuple(_segments(words)) for words in self._words(audio, windows, progress)]

    def _words(self, audio: Audio, windows: Sequence[Window], progress: Progress) -> list[list[Word]]:
        """The words of each window."""
        words: list[list[Word]] = []
        for first in range(0, len(windows), self._batch):
            # The library cannot be interrupted: who cancels need not wait for its end.
            words += watched(partial(self._hear, audio, windows[first : first + self._batch]), progress)
            progress(len(words) / len(windows))
        progress(1.0)
        return words

    def _hear(self, audio: Audio, windows: Sequence[Window], _report: Progress) -> list[list[Word]]:
        heard = self._model.recognize([audio.seconds(window.start_s, window.end_s) for window in windows])
        return [
            list(words_of(one.tokens or (), one.timestamps or (), one.logprobs or (), window.start_s, window.end_s))
            for window, one in zip(windows, heard, strict=True)
        ]


def _load(path: Path, full: bool, device: Device, threads: int) -> tuple[TimestampedResultsAsrAdapter, str]:
    """The model and what it runs on."""
    try:
        import onnx_asr
        import onnxruntime
    except ImportError as error:
        raise EngineUnavailable(f"Parakeet needs a package ({error}): pip install onnx-asr.") from error
    available = onnxruntime.get_available_providers()
    on = "cuda" if device == "cuda" or (device == "auto" and "CUDAExecutionProvider" in available) else "cpu"
    if on == "cuda" and "CUDAExecutionProvider" not in available:
        raise EngineUnavailable("Parakeet cannot run on CUDA: this ONNX Runtime has none; pip install onnxruntime-gpu.")
    quantization = None if full else "int8"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # the arena keeps the peak of every shape it has seen
    providers: list[Any] = ["CUDAExecutionProvider"] if on == "cuda" else ["CPUExecutionProvider"]
    try:
        model = onnx_asr.load_model(
            "nemo-conformer-tdt", path, quantization=quantization, sess_options=options, providers=providers
        )
    except Exception as error:  # ONNX Runtime's and the library's errors share no base class but Exception
        raise EngineUnavailable(f"The Parakeet model in {path} does not load on {on} ({error}).") from error
    return model.with_timestamps(), on


def _segments(words: Sequence[Word]) -> Iterator[Segment]:
    """Words joined, and cut at pauses of `PAUSE_S` or more."""
    first = 0
    for number in range(1, len(words) + 1):
        if number < len(words) and (words[number].start_s or 0.0) - (words[number - 1].end_s or 0.0) < PAUSE_S:
            continue
        run = words[first:number]
        first = number
        if text := "".join(word.text for word in run).strip():
            yield Segment(run[0].start_s or 0.0, run[-1].end_s or 0.0, text, tuple(run))
