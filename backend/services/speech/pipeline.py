"""The speech pipeline: decode → transcribe ∥ diarize → attribute. Owns the threads; knows no storage and no rows."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from backend.concurrency.waiting import all_of
from backend.domain.attribution import attribute, speaker_stats
from backend.domain.coverage import together
from backend.domain.transcript import Diarization, Transcription
from backend.engines.audio.allowance import Allowance
from backend.engines.audio.probe import MediaInfo
from backend.engines.audio.samples import MAX_DECODE_S, Audio, decode_tracks, probe
from backend.engines.audio.vad import speech_regions
from backend.engines.base import Diarizer, Progress, TranscribeOptions, Transcriber
from backend.engines.inventory import SpeechModel
from backend.engines.lazy import Lazy
from backend.services.speech.choice import choose, doubts
from backend.services.speech.listening import Listened, listen_again
from backend.services.speech.models import Models
from backend.services.speech.steps import Steps
from backend.services.speech.values import (
    Channels,
    Choice,
    EngineOutput,
    Recording,
    RecordingFacts,
    SpeechOptions,
    SpeechResult,
    TrackOutput,
    TracksOutput,
)

ATTRIBUTION = (
    "Speaker diarization: pyannote community-1 by pyannote, CC BY 4.0",
    "Built-in English transcription: Moonshine tiny-en by Useful Sensors, MIT",
    "Whisper models by OpenAI, MIT, where configured",
    "Parakeet models by NVIDIA, CC BY 4.0, where configured",
)


class SpeechPipeline:
    """The transcribers on this disk and one diarizer (or none), loaded on first use.

    Args:
        transcriber: the engine that hears words, or the models of which one is chosen for each recording.
        diarizer: the engine that tells voices apart; None: everything is one speaker's.
        max_audio_s: longest recording in decoded seconds.
        max_decode_s: longest decoding in seconds of computing.
        spool_dir: where decoded samples are kept while a recording is processed.
        probing: what decoders may use that only look at a recording.
        decoding: what the others may use.
        keep_voices: off: embeddings of voices go no further than the diarizer, not even into a checkpoint.
    """

    def __init__(
        self,
        transcriber: Models | Lazy[Transcriber],
        diarizer: Lazy[Diarizer] | None,
        *,
        max_audio_s: float,
        max_decode_s: float = MAX_DECODE_S,
        spool_dir: Path | None = None,
        probing: Allowance | None = None,
        decoding: Allowance | None = None,
        keep_voices: bool = True,
    ) -> None:
        self.models = transcriber if isinstance(transcriber, Models) else Models.only(transcriber)
        self._diarizer = diarizer
        self._max_audio_s = max_audio_s
        self._max_decode_s = max_decode_s
        self._spool_dir = spool_dir
        self._probing, self._decoding = probing or Allowance(), decoding or Allowance()
        self._keep_voices = keep_voices
        # Inference has separate threads: a long recording must not starve the 40 threads that serve files.
        # Two recordings at a time per engine, so that a short one need not wait for a long one; the engines themselves
        # use all cores.
        self._asr_limiter = anyio.CapacityLimiter(2)
        self._diarization_limiter = anyio.CapacityLimiter(2)
        self._load_limiter = anyio.CapacityLimiter(4)
        self._decode_limiter = anyio.CapacityLimiter(2)
        self._probe_limiter = anyio.CapacityLimiter(4)  # its own: an upload is not to wait for long decodings

    @property
    def engines(self) -> dict[str, str]:
        """Role → engine name, loaded or not; for a recording of which nothing is known."""
        return self.engines_for(TranscribeOptions())

    def engines_for(self, options: TranscribeOptions) -> dict[str, str]:
        """As `engines`, for a recording with these options; the language that is heard may decide otherwise."""
        return self._engines(self.models.expected(options))

    def _engines(self, model: str) -> dict[str, str]:
        diarizer = self._diarizer
        told = (diarizer.get().name if diarizer.loaded else diarizer.name) if diarizer else "none"
        return {"transcription": self.models.engine_name(model), "diarization": told}

    @property
    def ready(self) -> bool:
        """Whether every model is in memory that a request without options needs."""
        return self.models.ready and (self._diarizer is None or self._diarizer.loaded)

    async def warm(self) -> None:
        """Load the models now that a request without options needs.

        Raises:
            EngineUnavailable: a model is missing or damaged.
        """
        await anyio.to_thread.run_sync(self.models.warm, limiter=self._asr_limiter)
        if self._diarizer:
            await anyio.to_thread.run_sync(self._diarizer.get, limiter=self._diarization_limiter)

    async def check(self, options: TranscribeOptions) -> None:
        """Refuse what no model on this disk can do; nothing is loaded. Raises InvalidInput, ModelMissing."""
        await anyio.to_thread.run_sync(self.models.check, options, limiter=self._load_limiter)

    async def probe(self, path: Path) -> MediaInfo:
        """What a recording's container claims, without decoding it. Raises as `backend.engines.audio.probe.probe`."""
        return await anyio.to_thread.run_sync(probe, path, self._probing, limiter=self._probe_limiter)

    async def run(self, path: Path, options: SpeechOptions, steps: Steps) -> SpeechResult:
        """Who said what in a recording: `hear` and `attribute`. Raises as `hear`."""
        output = await self.hear(path, options, steps)
        return await steps.run("attribute", partial(self.attribute, output), SpeechResult)

    async def hear(self, path: Path, options: SpeechOptions, steps: Steps) -> EngineOutput:
        """What was said in a recording and who spoke when. With separate channels each track is its own speaker's.

        Raises:
            EngineUnavailable: a model cannot be loaded.
            InvalidInput: the bytes are no usable recording, or no model may hear its language.
            ModelMissing: the model asked for is not on this disk.
            TooLarge: longer than MAX_AUDIO_SECONDS.
        """
        await self.check(options.transcribe)
        samples = _Samples(partial(self._decode, path, options, steps))
        try:
            facts = await steps.run("decode", samples.get_facts, RecordingFacts)
            choice = await steps.run("identify", partial(self._choose, samples, options.transcribe, steps), Choice)
            chosen = replace(
                options, transcribe=replace(options.transcribe, language=choice.language, model=choice.model)
            )
            async with self._leased(self.models.found_for(choice.model, options.transcribe)) as transcriber:
                transcriber.check(chosen.transcribe)
                hear = self._hear_tracks if facts.tracks > 1 else self._hear
                listened, diarization = await hear(transcriber, samples, chosen, steps)
            return EngineOutput(facts, choice, listened.transcription, diarization, listened.coverage)
        finally:
            samples.close()

    async def _choose(self, samples: _Samples, options: TranscribeOptions, steps: Steps) -> Choice:
        tracks = (await samples.get()).tracks
        run = partial(choose, self.models, tracks, options, partial(steps.progress, "identify"))
        return await anyio.to_thread.run_sync(run, limiter=self._asr_limiter)

    @asynccontextmanager
    async def _leased(self, model: SpeechModel) -> AsyncIterator[Transcriber]:
        """A model that stays in memory inside the block."""
        lease, taken = self.models.lease(model), list[Transcriber]()
        try:
            await anyio.to_thread.run_sync(lambda: taken.append(lease.__enter__()), limiter=self._load_limiter)
            yield taken[0]
        finally:
            if taken:  # also if the wait for the thread was cancelled
                lease.__exit__(None, None, None)

    async def attribute(self, output: EngineOutput) -> SpeechResult:
        """Give what was said to who said it; in a thread, since a day of words takes seconds."""
        return await anyio.to_thread.run_sync(self._attribute, output)

    def _attribute(self, output: EngineOutput) -> SpeechResult:
        facts, diarization = output.facts, output.diarization
        transcript, labels = attribute(output.transcription, diarization)
        stats = speaker_stats(transcript, diarization, labels)
        engines = self._engines(output.choice.model) | ({"diarization": "channels"} if facts.tracks > 1 else {})
        heard = diarization.voices if diarization else {}
        voices = {labels[label]: voice for label, voice in heard.items() if label in labels}
        return SpeechResult(
            transcript,
            stats,
            facts.duration_s,
            facts.media,
            engines,
            voices,
            losses=facts.losses,
            coverage=output.coverage,
            warnings=output.choice.warnings + doubts(output.choice, output.transcription),
        )

    async def _decode(self, path: Path, options: SpeechOptions, steps: Steps) -> Recording:
        def run() -> Recording:
            tracks = decode_tracks(
                path,
                separate=options.channels == Channels.SEPARATE,
                stream=options.audio_stream,
                max_s=self._max_audio_s,
                max_decode_s=self._max_decode_s,
                spool_dir=self._spool_dir,
                allowance=self._decoding,
                progress=partial(steps.progress, "decode"),
            )
            recording = Recording(tracks)
            try:
                steps.progress("decode", 1.0)
            except BaseException:
                recording.close()
                raise
            return recording

        return await anyio.to_thread.run_sync(run, limiter=self._decode_limiter)

    async def _hear(
        self, transcriber: Transcriber, samples: _Samples, options: SpeechOptions, steps: Steps
    ) -> tuple[Listened, Diarization | None]:
        """Both branches, side by side or, if the transcriber needs the turns, one by one; then what they left out."""

        async def diarize() -> Diarization | None:
            engine = self._diarizer
            if engine is None:
                return None

            async def work() -> Diarization:
                audio = (await samples.get()).tracks[0]
                diarizer = await anyio.to_thread.run_sync(engine.get, limiter=self._load_limiter)
                run = partial(diarizer.diarize, audio, options.speakers, partial(steps.progress, "diarize"))
                found = await anyio.to_thread.run_sync(run, limiter=self._diarization_limiter)
                return found if self._keep_voices else replace(found, voices={})

            return await steps.run("diarize", work, Diarization)

        async def transcribe(turns: Diarization | None) -> Transcription:
            async def work() -> Transcription:
                audio = (await samples.get()).tracks[0]
                report = partial(steps.progress, "transcribe")
                run = partial(self._transcribe, transcriber, audio, options.transcribe, turns, report)
                return await anyio.to_thread.run_sync(run, limiter=self._asr_limiter)

            return await steps.run("transcribe", work, Transcription)

        if transcriber.needs_turns:
            diarization = await diarize()
            heard = await transcribe(diarization)
        else:
            heard, diarization = await all_of(transcribe(None), diarize())

        async def listen() -> Listened:
            audio = (await samples.get()).tracks[0]
            run = partial(
                listen_again,
                transcriber,
                audio,
                options.transcribe,
                heard,
                diarization,
                lambda _: steps.progress("transcribe", 1.0),
            )
            return await anyio.to_thread.run_sync(run, limiter=self._asr_limiter)

        return await steps.run("listen", listen, Listened), diarization

    async def _hear_tracks(
        self, transcriber: Transcriber, samples: _Samples, options: SpeechOptions, steps: Steps
    ) -> tuple[Listened, Diarization]:
        """Every track by itself; who speaks is known, only when is asked."""

        def hear(audio: Audio, number: int, count: int) -> TrackOutput:
            def report(fraction: float) -> None:
                steps.progress("transcribe", (number + fraction) / count)

            turns = tuple(replace(turn, speaker=f"channel {number}") for turn in speech_regions(audio, report))
            spoken = Diarization(turns, turns)
            heard = self._transcribe(transcriber, audio, options.transcribe, spoken, report)
            listened = listen_again(transcriber, audio, options.transcribe, heard, spoken, lambda _: report(1.0))
            return TrackOutput(listened.transcription, turns, listened.coverage)

        async def work() -> TracksOutput:
            tracks = (await samples.get()).tracks
            return TracksOutput(
                tuple(
                    [
                        await anyio.to_thread.run_sync(hear, audio, number, len(tracks), limiter=self._asr_limiter)
                        for number, audio in enumerate(tracks)
                    ]
                )
            )

        heard = (await steps.run("transcribe", work, TracksOutput)).tracks
        segments = [
            replace(segment, speaker=f"channel {number}")
            for number, track in enumerate(heard)
            for segment in track.transcription.segments
        ]
        turns = tuple(sorted((turn for track in heard for turn in track.turns), key=lambda turn: turn.start_s))
        language = next((track.transcription.language for track in heard if track.transcription.language), None)
        coverage = together(track.coverage for track in heard)
        return Listened(Transcription(tuple(segments), language), coverage), Diarization(turns, turns)

    def _transcribe(
        self,
        transcriber: Transcriber,
        audio: Audio,
        options: TranscribeOptions,
        turns: Diarization | None,
        progress: Progress,
    ) -> Transcription:
        began = time.perf_counter()
        heard = transcriber.transcribe(audio, options, turns, progress)
        self.models.note(options.model or "", audio.duration_s, time.perf_counter() - began)
        return heard


class _Samples:
    """A recording that is decoded when it is first needed: not at all if every stage was done before."""

    def __init__(self, decode_it: Callable[[], Awaitable[Recording]]) -> None:
        self._decode = decode_it
        self._lock = anyio.Lock()
        self._recording: Recording | None = None

    async def get(self) -> Recording:
        async with self._lock:
            if self._recording is None:
                self._recording = await self._decode()
        return self._recording

    async def get_facts(self) -> RecordingFacts:
        return (await self.get()).facts

    def close(self) -> None:
        if self._recording is not None:
            self._recording.close()
