"""Whisper through faster-whisper: 99 languages, word times, batches. Never downloads.

The models and the place they are looked for live in `catalogue.py`; what is decoded when, in `rounds.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from backend.domain.coverage import united
from backend.domain.transcript import Diarization, Segment, SpeakerTurn, Transcription
from backend.engines.audio.samples import SAMPLE_RATE_HZ, Audio
from backend.engines.audio.vad import speech_regions
from backend.engines.base import LanguageGuess, Progress, TranscribeOptions
from backend.engines.catalogue import KNOWN_MODELS, WHISPER_FILES, find_whisper, missing_files
from backend.engines.identification import identify
from backend.engines.progress import watched
from backend.engines.whisper.decoding import BatchDecoder, features_of
from backend.engines.whisper.rounds import ROUNDS, HeardWindow, decode_in_rounds
from backend.engines.whisper.windows import Span, Speech, Window, cut_windows
from backend.engines.whisper.words import segments_of
from backend.errors import EngineUnavailable, InvalidInput

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

Device = Literal["auto", "cpu", "cuda"]

# Whisper keeps half of its 448 positions for prompts; longer ones leave no positions for the text.
PROMPT_TOKENS = 220

# A pause between words that a window may end in.
SHORTEST_PAUSE_S = 0.2

# Windows in which a language is looked for until one is more likely than not.
LANGUAGE_WINDOWS = 4

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
    may_invent = True

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
            audio: read in windows of at most 30 s.
            diarization: not used, this engine places words by itself.

        Raises:
            InvalidInput: the model does not know the language.
        """
        language = self._language(options.language)
        speech = Speech(_spans(speech_regions(audio, progress, least_pause_s=SHORTEST_PAUSE_S, padding_s=0.0)))
        windows = cut_windows(speech.spans, partial(_quietest, audio), audio.duration_s)
        # A batch takes seconds and cannot be interrupted: who cancels need not wait for its end.
        work = partial(self._hear, audio, windows, speech, options, language)
        heard, language = watched(work, progress) if windows else ([], None)
        segments = tuple(segments_of(heard, speech, audio.duration_s))
        progress(1.0)
        return Transcription(segments, language if segments else None)

    def transcribe_spans(
        self, audio: Audio, spans: Sequence[Span], options: TranscribeOptions, progress: Progress
    ) -> list[tuple[Segment, ...]]:
        """See the protocol."""
        language, speech = self._language(options.language), Speech(united(spans))
        windows = [
            Window(start_s, min(end_s, audio.duration_s), number) for number, (start_s, end_s) in enumerate(spans)
        ]
        work = partial(self._hear, audio, windows, speech, options, language, rounds=1)
        heard, _ = watched(work, progress) if windows else ([], None)
        return [
            tuple(segments_of([one for one in heard if one.window.origin == number], speech, audio.duration_s))
            for number in range(len(spans))
        ]

    def _hear(
        self,
        audio: Audio,
        windows: Sequence[Window],
        speech: Speech,
        options: TranscribeOptions,
        language: str | None,
        progress: Progress,
        *,
        rounds: int = ROUNDS,
    ) -> tuple[list[HeardWindow], str]:
        """What was heard in windows, and the language given or detected."""
        language = language or self._detect_language(audio, windows)
        decoder = BatchDecoder(self._model, language, *self._hints(options))
        heard = decode_in_rounds(windows, speech, audio.seconds, decoder.decode, self._batch_size, progress, rounds)
        return heard, language

    def _detect_language(self, audio: Audio, windows: Sequence[Window]) -> str:
        """The language of the first windows: the first that is more likely than not, else the likeliest in all."""
        if not self._model.model.is_multilingual:
            return "en"
        likely: dict[str, float] = {}
        for window in windows[:LANGUAGE_WINDOWS]:
            features = features_of(self._model, [audio.seconds(window.start_s, window.end_s)])
            token, probability = self._model.model.detect_language(self._model.encode(features))[0][0]
            code = str(token).strip("<|>")
            likely[code] = likely.get(code, 0.0) + probability
            if probability > 0.5:
                return code
        return max(likely, key=lambda code: likely[code])

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


def _spans(turns: Iterable[SpeakerTurn]) -> list[Span]:
    return [(turn.start_s, turn.end_s) for turn in turns]


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


def _quietest(audio: Audio, start_s: float, end_s: float) -> float:
    """Middle of the quietest tenth of a second: a pause between words, if there is one."""
    frame = SAMPLE_RATE_HZ // 10
    samples = audio.seconds(start_s, end_s)
    energy = np.square(samples[: len(samples) // frame * frame].reshape(-1, frame)).mean(axis=1)
    return start_s + (int(energy.argmin()) + 0.5) * frame / SAMPLE_RATE_HZ
