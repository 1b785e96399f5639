"""Form and response of `POST /audio/process`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from backend.api.schemas.transcripts import TranscriptOut
from backend.domain.languages.codes import language_code
from backend.domain.text import plain
from backend.domain.transcript import SpeakerCount, Transcript
from backend.engines.base import TranscribeOptions
from backend.services.conversations.views import DetailedConversation
from backend.services.jobs.views import JobView
from backend.services.processing.service import ProcessOptions
from backend.services.speech.values import Channels, SpeechOptions

MAX_SPEAKERS, MAX_STREAM = 50, 99


def _blank_is_none(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _blank_is_mix(value: object) -> object:
    return _blank_is_none(value) or "mix"


Blank = BeforeValidator(_blank_is_none)


Speakers = Annotated[Annotated[int, Field(ge=1, le=MAX_SPEAKERS)] | None, Blank]


StreamNumber = Annotated[Annotated[int, Field(ge=0, le=MAX_STREAM)] | None, Blank]


Language = Annotated[str | None, AfterValidator(lambda tag: language_code(tag) if tag else None)]


Words = Annotated[Annotated[str, Field(max_length=2000)] | None, Blank]


Address = Annotated[Annotated[str, Field(max_length=4000)] | None, Blank]


Model = Annotated[Annotated[str, Field(max_length=200)] | None, Blank]


UploadId = Annotated[Annotated[str, Field(max_length=64, pattern="^[A-Za-z0-9_-]+$")] | None, Blank]


Title = Annotated[Annotated[str, Field(max_length=500), AfterValidator(plain)] | None, Blank]


class ProcessForm(BaseModel):
    """The optional form fields of `POST /audio/process`; a blank field counts as left out."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)

    language: Language = Field(
        None,
        description="ISO 639-1 code of the spoken language, such as `en`; a region (`en-US`, `en_GB`) is ignored. "
        "Detected if omitted or `auto`",
        examples=["en"],
    )
    model: Model = Field(
        None,
        description="Model that transcribes: a name from `GET /models`, or `auto` for the best one on this server's "
        "disk for the recording's language; default: what the server is set to",
        examples=["auto"],
    )
    num_speakers: Speakers = Field(None, description="Exact number of speakers")
    min_speakers: Speakers = Field(None, description="Smallest number of speakers")
    max_speakers: Speakers = Field(None, description="Largest number of speakers")
    channels: Annotated[Literal["mix", "separate"], BeforeValidator(_blank_is_mix)] = Field(
        "mix", description="`separate`: each channel is one speaker, as in a recorded call"
    )
    audio_stream: StreamNumber = Field(
        None,
        description="The only audio track to listen to, counted from 0. Left out: all of them together, except "
        "commentaries and other languages than the default track's",
        examples=[""],  # Swagger UI would fill in the largest number
    )
    prompt: Words = Field(
        None, description="Topic of the recording, with names and terms spelled as they should appear"
    )
    hotwords: Words = Field(None, description="Rare words that occur, separated by spaces")
    title: Title = Field(None, description="Title of the conversation")
    # Swagger UI would fill these in with "string", and a recording has one source.
    url: Address = Field(
        None, description="URL of the recording, instead of a file; needs INGEST_FROM_URL=on", examples=[""]
    )
    upload_id: UploadId = Field(None, description="Id of a finished upload, instead of a file", examples=[""])
    callback_url: Address = Field(
        None, description="URL to notify when the job ends; needs WEBHOOK_SECRET", examples=[""]
    )

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        low, high, exact = self.min_speakers, self.max_speakers, self.num_speakers
        if low and high and low > high:
            raise ValueError(f"min_speakers ({low}) is greater than max_speakers ({high})")
        if exact and ((low and exact < low) or (high and exact > high)):
            raise ValueError(f"num_speakers ({exact}) is outside min_speakers and max_speakers")
        return self

    def to_options(self) -> ProcessOptions:
        speech = SpeechOptions(
            transcribe=TranscribeOptions(self.language, self.prompt, self.hotwords, self.model),
            channels=Channels(self.channels),
            audio_stream=self.audio_stream,
            speakers=SpeakerCount(self.num_speakers, self.min_speakers, self.max_speakers),
        )
        return ProcessOptions(title=self.title, speech=speech)


class CoverageOut(BaseModel):
    """How much of what was said has words in the transcript."""

    speech_s: float = Field(description="Seconds in which somebody speaks", examples=[31.2])
    without_words_s: float = Field(description="Seconds of speech without words", examples=[0.0])
    without_words: list[tuple[float, float]] = Field(description="Start and end of those stretches in seconds")


class ProcessResponse(BaseModel):
    conversation_id: str = Field(examples=["conv_4f2c9a51d0b84e7f8a3b6c1d2e3f4a5b"])
    audio_file_path: str = Field(examples=["./uploads/conv_4f2c…/2026/01/15/meeting.wav"])
    transcript_file_path: str = Field(examples=["./uploads/conv_4f2c…/2026/01/15/conv_4f2c…_transcript.txt"])
    transcript: TranscriptOut
    message: str = Field(examples=["Successfully processed audio with 2 speakers and saved to storage"])
    duration_s: float = Field(description="Duration of the recording", examples=[38.4])
    language: str | None = Field(description="ISO 639-1 code; null if there is no speech", examples=["en"])
    engines: dict[str, str] = Field(examples=[{"transcription": "moonshine tiny-en", "diarization": "community-1"}])
    timings_s: dict[str, float] = Field(description="Seconds per stage; parallel stages overlap")
    coverage: CoverageOut | None = Field(description="How much of the speech has words; null if it was not measured")
    warnings: list[str] = Field(
        description="Deviations from the configuration, for example a fallback to local storage"
    )

    @classmethod
    def from_result(cls, found: DetailedConversation, job: JobView) -> ProcessResponse:
        """Of a completed conversation and its job."""
        count = found.speaker_count or 0
        speakers = f"{count} speaker{'' if count == 1 else 's'}"
        return cls(
            conversation_id=found.id,
            audio_file_path=found.recording_url or "",
            transcript_file_path=found.transcript_url or "",
            transcript=TranscriptOut.from_transcript(found.transcript or Transcript(), found.participants),
            message=f"Successfully processed audio with {speakers} and saved to storage",
            duration_s=found.duration_s or 0.0,
            language=found.language,
            engines=dict(found.engines or {}),
            timings_s=dict(job.timings_s),
            coverage=CoverageOut.model_validate(job.coverage) if job.coverage else None,
            warnings=list(found.warnings or ()),
        )
