"""One batch of windows through Whisper: features, beam search with time tokens, second tries, word times.

The pieces are faster-whisper's own (`encode`, `generate_with_fallback`, `add_word_timestamps`); its two pipelines are
not used: the plain one decodes window after window, the batched one has neither time tokens nor second tries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backend.domain.transcript import Word

if TYPE_CHECKING:
    from faster_whisper import WhisperModel
    from faster_whisper.transcribe import TranscriptionOptions

Floats = NDArray[np.float32]

BEAM_SIZE = 5
RETRY_TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)
MOST_COMPRESSION = 2.4
LEAST_LOG_PROBABILITY = -1.0
NO_SPEECH = 0.6
"""The four of them as in Whisper's paper (Radford et al. 2022, section 4.5)."""
FIRST_TIME_TOKENS = 50
"""A window's first time token says at most one second, as in the paper; windows begin where speech does."""
RUNAWAY_TOKENS = 220
"""CTranslate2 stops at half of the 448 positions; text that gets so far was not ended by the decoder."""
PREPENDED, APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001
"""Punctuation that belongs to the word behind it, or before it; the library's defaults."""


@dataclass(frozen=True, slots=True)
class HeardText:
    """A piece of text between two time tokens of a window; all times in seconds from the window's start.

    Words keep their leading space: joined and stripped they are the text.
    """

    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """What Whisper made of one window.

    Attributes:
        last_s: up to where it has decoded, by its last time token.
        log_probability: mean over the tokens.
        ended: whether it ended by itself.
    """

    texts: tuple[HeardText, ...]
    last_s: float
    no_speech: float
    log_probability: float
    ended: bool


@dataclass(frozen=True, slots=True)
class _Decoded:
    tokens: Sequence[int]
    log_probability: float
    no_speech: float
    text: str


class BatchDecoder:
    """Decodes batches of windows with one model, language and prompt. Not shared between calls."""

    def __init__(self, model: WhisperModel, language: str, prompt: str | None, hotwords: str | None) -> None:
        from faster_whisper.tokenizer import Tokenizer
        from faster_whisper.transcribe import get_suppressed_tokens

        self._model = model
        self._tokenizer = Tokenizer(
            model.hf_tokenizer, model.model.is_multilingual, task="transcribe", language=language
        )
        self._suppressed = get_suppressed_tokens(self._tokenizer, [-1])
        before = self._tokenizer.encode(prompt) if prompt else []
        self._prompt = model.get_prompt(self._tokenizer, before, without_timestamps=False, hotwords=hotwords)

    def decode(self, windows: Sequence[Floats]) -> list[Heard]:
        """Text of each window.

        Args:
            windows: each (n_samples,) float32, 16 kHz, at most 30 s.
        """
        features = features_of(self._model, windows)
        encoded = self._model.encode(features)
        decoded = [self._mended(one, features[number]) for number, one in enumerate(self._generate(encoded, windows))]
        durations = [len(samples) / self._model.feature_extractor.sampling_rate for samples in windows]
        return self._timed(encoded, decoded, durations)

    def _generate(self, encoded: Any, windows: Sequence[Floats]) -> list[_Decoded]:
        results = self._model.model.generate(
            encoded,
            [list(self._prompt) for _ in windows],
            beam_size=BEAM_SIZE,
            max_length=self._model.max_length,
            suppress_blank=True,
            suppress_tokens=self._suppressed,
            max_initial_timestamp_index=FIRST_TIME_TOKENS,
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [self._decoded(result) for result in results]

    def _decoded(self, result: Any) -> _Decoded:
        tokens = result.sequences_ids[0]
        log_probability = result.scores[0] * len(tokens) / (len(tokens) + 1)
        return _Decoded(tokens, log_probability, result.no_speech_prob, self._tokenizer.decode(tokens).strip())

    def _mended(self, decoded: _Decoded, features: Floats) -> _Decoded:
        """The decoding itself, or that of a second try if it failed; no text where nobody speaks."""
        if _is_silence(decoded):
            return replace(decoded, tokens=(), text="")
        if not _has_failed(decoded):
            return decoded
        options = _retry_options(self._suppressed)
        result, log_probability, *_ = self._model.generate_with_fallback(
            self._model.encode(features), list(self._prompt), self._tokenizer, options
        )
        again = replace(self._decoded(result), log_probability=log_probability)
        return replace(again, tokens=(), text="") if _is_silence(again) else again

    def _timed(self, encoded: Any, decoded: Sequence[_Decoded], durations_s: Sequence[float]) -> list[Heard]:
        model = self._model
        pieces: list[list[dict[str, Any]]] = []
        sizes = [int(np.ceil(duration_s * model.frames_per_second)) for duration_s in durations_s]
        last_s: list[float] = []
        for one, size, duration_s in zip(decoded, sizes, durations_s, strict=True):
            found, seek, _ = model._split_segments_by_timestamps(
                tokenizer=self._tokenizer,
                tokens=list(one.tokens),
                time_offset=0.0,
                segment_size=size,
                segment_duration=duration_s,
                seek=0,
            )
            pieces.append([piece | {"seek": 0} for piece in found])
            last_s.append(min(duration_s, seek / model.frames_per_second))
        if any(one.tokens for one in decoded):
            model.add_word_timestamps(pieces, self._tokenizer, encoded, sizes, PREPENDED, APPENDED, 0.0)
        return [
            Heard(
                tuple(self._texts(own)),
                end_s,
                one.no_speech,
                one.log_probability,
                len(one.tokens) < RUNAWAY_TOKENS,
            )
            for own, end_s, one in zip(pieces, last_s, decoded, strict=True)
        ]

    def _texts(self, pieces: Sequence[dict[str, Any]]) -> list[HeardText]:
        return [
            HeardText(
                piece["start"],
                piece["end"],
                text,
                tuple(
                    Word(word["word"], float(word["start"]), float(word["end"]), float(word["probability"]))
                    for word in piece.get("words", ())
                ),
            )
            for piece in pieces
            if (text := self._tokenizer.decode(piece["tokens"]).strip())
        ]


def features_of(model: WhisperModel, windows: Sequence[Floats]) -> Floats:
    """(n_windows, n_mels, 3000) log-mel features of windows followed by silence up to 30 s, as in Whisper's training.

    The library appends zeros to the features instead, which is the sound of a noise.
    """
    from faster_whisper.audio import pad_or_trim

    extract = model.feature_extractor
    padded = [np.pad(samples, (0, max(0, extract.n_samples - len(samples)))) for samples in windows]
    return np.stack([pad_or_trim(extract(samples)[..., :-1]) for samples in padded])


def _has_failed(decoded: _Decoded) -> bool:
    """Repeats itself, or is most unlikely."""
    from faster_whisper.transcribe import get_compression_ratio

    if decoded.log_probability < LEAST_LOG_PROBABILITY:
        return True
    return bool(decoded.text) and get_compression_ratio(decoded.text) > MOST_COMPRESSION


def _is_silence(decoded: _Decoded) -> bool:
    return decoded.no_speech > NO_SPEECH and decoded.log_probability < LEAST_LOG_PROBABILITY


def _retry_options(suppressed: Sequence[int]) -> TranscriptionOptions:
    from faster_whisper.transcribe import TranscriptionOptions

    return TranscriptionOptions(
        beam_size=BEAM_SIZE,
        best_of=5,
        patience=1.0,
        length_penalty=1.0,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        log_prob_threshold=LEAST_LOG_PROBABILITY,
        no_speech_threshold=NO_SPEECH,
        compression_ratio_threshold=MOST_COMPRESSION,
        condition_on_previous_text=False,
        prompt_reset_on_temperature=0.5,
        temperatures=list(RETRY_TEMPERATURES),
        initial_prompt=None,
        prefix=None,
        suppress_blank=True,
        suppress_tokens=list(suppressed),
        without_timestamps=False,
        max_initial_timestamp=FIRST_TIME_TOKENS * 0.02,
        word_timestamps=True,
        prepend_punctuations=PREPENDED,
        append_punctuations=APPENDED,
        multilingual=False,
        max_new_tokens=None,
        clip_timestamps="0",
        hallucination_silence_threshold=None,
        hotwords=None,
    )
