"""Whisper through faster-whisper: 99 languages, word times, batched decoding. Never downloads.

The models and the place they are looked for live in `models.py`; cutting the audio at silences is the library's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from backend.domain.sentences import text_without_loops, words_without_loops
from backend.domain.transcript import Diarization, Segment, Transcription, Word
from backend.engines.audio.samples import Audio
from backend.engines.base import LanguageGuess, Progress, TranscribeOptions
from backend.engines.catalogue import KNOWN_MODELS, WHISPER_FILES, find_whisper, missing_files
from backend.engines.identification import identify
from backend.engines.progress import watched
from backend.errors import EngineUnavailable, InvalidInput

if TYPE_CHECKING:
    from faster_whisper import WhisperModel
    from faster_whisper.transcribe import Segment as HeardSegment

Device = Literal["auto", "cpu", "cuda"]

# The batched decoder glues speech from both sides of a silence into one segment of up to 30 s; at such a pause it is
# cut again, or a segment could span minutes of silence.
PAUSE_S = 1.0

# Whisper keeps half of its 448 positions for prompts; longer ones leave no positions for the text.
PROMPT_TOKENS = 220

# CTranslate2 stops a chunk of 30 s at half of the 448 positions; text that gets so far was not ended by the decoder.
RUNAWAY_TOKENS = 220

_CONTROL_TOKEN = re.compile(r"<\|[^|]*\|>")


class FasterWhisperTranscriber:
    """A loaded Whisper model. Safe to call from several threads; calls then take turns inside CTranslate2.

    Args:
        model: a name ("small"), a hub repository that is in the cache, or a directory.
        name: what to call it; default: after `model`.
        models_dir: where named models are looked for before the user's hub cache.
        device: "auto" takes CUDA if there is a device.
        compute_type: "auto" is int8 on CPU and float16 on CUDA; else a CTranslate2 type.
        threads: CPU threads of one decoding; 0 is all cores that this process may use.
        batch_size: 30-second chunks decoded together; memory grows with it.

    Raises:
        EngineUnavailable: the package, the model or the device is missing.
    """

    needs_turns = False

    def __init__(
        self,
        model: str = "small",
        *,
        models_dir: Path | None = None,
        name: str | None = None,
        device: Device = "auto",
        compute_type: str = "auto",
        threads: int = 0,
        batch_size: int = 8,
    ) -> None:
        path = _find(model, models_dir)
        self._batch_size = batch_size
        self._model = _load(path, device, compute_type, threads or len(os.sched_getaffinity(0)))
        self._languages = _languages(self._model)
        inner = self._model.model
        self.name = f"faster-whisper {name or Path(model).name} ({_short(inner.compute_type)}, {inner.device})"

    def check(self, options: TranscribeOptions) -> None:
        """Raises InvalidInput for a language that the model does not know."""
        self._language(options.language)

    def identify(self, tracks: Sequence[Audio], progress: Progress) -> LanguageGuess | None:
        """As `identification.identify`; for multilingual models."""
        return identify(self._model, tracks, progress)

    def transcribe(
        self,
        audio: Audio,
        options: TranscribeOptions,
        diarization: Diarization | None,  # noqa: ARG002 - the protocol's signature
        progress: Progress,
    ) -> Transcription:
        """Text with word times. Every `Word.text` keeps its leading space: joined and stripped they are the text.

        Args:
            audio: read as a whole, (n_samples,) float32: 230 MB for an hour; the library cannot take windows.
            diarization: not used, this engine places words by itself.

        Raises:
            InvalidInput: the model does not know the language.
        """
        language = self._language(options.language)
        prompt, hotwords = self._hints(options)
        # A batch takes seconds and cannot be interrupted: who cancels need not wait for its end.
        transcription = watched(partial(self._hear, audio, language, prompt, hotwords), progress)
        progress(1.0)
        return transcription

    def _hear(
        self, audio: Audio, language: str | None, prompt: str | None, hotwords: str | None, progress: Progress
    ) -> Transcription:
        from faster_whisper import BatchedInferencePipeline

        # A new pipeline for each call: it keeps the time of the last word in itself, which calls must not share.
        heard, info = BatchedInferencePipeline(self._model).transcribe(
            audio.read(),
            language=language,
            initial_prompt=prompt,
            hotwords=hotwords,
            batch_size=self._batch_size,
            word_timestamps=True,
            vad_filter=True,
            condition_on_previous_text=False,
        )
        segments = tuple(_segments(_reported(heard, audio.duration_s, progress), audio.duration_s))
        return Transcription(segments, info.language if segments else None)

    def _language(self, code: str | None) -> str | None:
        language = code.strip().lower() if code else None
        if not language or language in self._languages:
            return language or None
        if len(self._languages) == 1:
            raise InvalidInput(f"The language {code!r} cannot be transcribed: {self.name} knows only English (en).")
        raise InvalidInput(
            f"Unknown language {code!r}: give the ISO 639-1 code of a language Whisper knows, such as en, de or zh, "
            "or leave it out to have it detected."
        )

    def _hints(self, options: TranscribeOptions) -> tuple[str | None, str | None]:
        budget = PROMPT_TOKENS // 2 if options.prompt and options.hotwords else PROMPT_TOKENS
        prompt = self._plain(options.prompt, slice(-budget, None))
        return (f" {prompt}" if prompt else None), self._plain(options.hotwords, slice(budget))

    def _plain(self, text: str | None, kept: slice) -> str | None:
        """Text without control tokens (which could switch the task or end the decoding), cut to what fits."""
        tokenizer = self._model.hf_tokenizer
        tokens = tokenizer.encode(_CONTROL_TOKEN.sub(" ", text or "").strip(), add_special_tokens=False).ids
        return tokenizer.decode(tokens[kept]).strip() or None


def _find(model: str, models_dir: Path | None) -> Path:
    path = find_whisper(model, models_dir)
    if path is not None:
        return path
    directory = Path(model).expanduser()
    if "/" in model and directory.is_dir():
        missing = missing_files(directory)
        raise EngineUnavailable(f"{directory} is no complete faster-whisper model: {', '.join(missing)} missing.")
    if model in KNOWN_MODELS:
        raise EngineUnavailable(f"The Whisper model {model} is not on this machine: run `aperta models pull {model}`.")
    raise EngineUnavailable(
        f"There is no Whisper model {model!r} on this machine: give a directory with "
        f"{', '.join(WHISPER_FILES)}, or a known name after `aperta models pull small`."
    )


def _load(path: Path, device: Device, compute_type: str, threads: int) -> WhisperModel:
    try:
        import ctranslate2
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise EngineUnavailable(f"faster-whisper cannot be imported ({error}): pip install faster-whisper.") from error
    try:
        if device == "auto":
            device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        if compute_type == "auto":
            compute_type = "float16" if device == "cuda" else "int8"
        model = WhisperModel(
            str(path), device=device, compute_type=compute_type, cpu_threads=threads, local_files_only=True
        )
        if device == "cuda":
            _probe_cuda(model)
    except (ValueError, RuntimeError, OSError) as error:
        raise EngineUnavailable(f"The Whisper model in {path} cannot be loaded on {device}: {error}.") from error
    return model


def _probe_cuda(model: WhisperModel) -> None:
    """One encoder pass: CTranslate2 looks for cuBLAS and cuDNN only when it computes, too late for a clear answer."""
    import numpy as np

    model.encode(np.zeros((model.model.n_mels, 3000), dtype=np.float32))


def _languages(model: WhisperModel) -> frozenset[str]:
    """Codes the model has a token for: the library lists Cantonese for all, only the newest models know it."""
    codes = model.supported_languages
    if codes == ["en"]:
        return frozenset(codes)
    return frozenset(code for code in codes if model.hf_tokenizer.token_to_id(f"<|{code}|>") is not None)


def _short(compute_type: str) -> str:
    """CTranslate2 reports what it really runs, "int8_float32" for int8 on a CPU."""
    return compute_type.removesuffix("_float32")


def _reported(heard: Iterable[HeardSegment], duration_s: float, progress: Progress) -> Iterator[HeardSegment]:
    for segment in heard:
        yield segment
        progress(min(1.0, segment.end / duration_s))


def _segments(heard: Iterable[HeardSegment], duration_s: float) -> Iterator[Segment]:
    for segment in heard:
        ended = len(segment.tokens) < RUNAWAY_TOKENS
        words = words_without_loops(
            [_word(word.word, word.start, word.end, word.probability, duration_s) for word in segment.words or ()],
            ended=ended,
        )
        if words:
            yield from (_joined(run) for run in _runs(words) if any(word.text.strip() for word in run))
        elif segment.text.strip():
            end_s = min(segment.end, duration_s)
            text = text_without_loops(segment.text.strip(), end_s - segment.start, ended=ended)
            yield Segment(segment.start, end_s, text)


def _word(text: str, start_s: float, end_s: float, probability: float, duration_s: float) -> Word:
    """Clamp times that the library rounded past the end of the recording, or into the wrong order."""
    start_s = min(max(0.0, float(start_s)), duration_s)
    return Word(text, start_s, min(max(start_s, float(end_s)), duration_s), float(probability))


def _runs(words: Sequence[Word]) -> Iterator[Sequence[Word]]:
    """Cut at pauses of `PAUSE_S` or more."""
    first = 0
    for i in range(1, len(words)):
        if (words[i].start_s or 0.0) - (words[i - 1].end_s or 0.0) >= PAUSE_S:
            yield words[first:i]
            first = i
    yield words[first:]


def _joined(words: Sequence[Word]) -> Segment:
    text = "".join(word.text for word in words).strip()
    return Segment(words[0].start_s or 0.0, words[-1].end_s or 0.0, text, tuple(words))
