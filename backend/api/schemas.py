"""What goes over the wire: requests in, responses out. `from_*` turn domain values and rows into them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from backend.database.models import Conversation, ConversationStatus, Participant, StoredObjectRow
from backend.database.repositories import to_transcript
from backend.domain.formats import to_text
from backend.domain.text import plain
from backend.domain.transcript import Segment, SpeakerCount, SpeakerStats, Transcript
from backend.engines.base import TranscribeOptions
from backend.services.processing import ProcessOptions
from backend.services.speech import Channels, SpeechOptions

MAX_SPEAKERS = 50


def _blank_is_none(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _blank_is_mix(value: object) -> object:
    return _blank_is_none(value) or "mix"


Blank = BeforeValidator(_blank_is_none)
Speakers = Annotated[Annotated[int, Field(ge=1, le=MAX_SPEAKERS)] | None, Blank]
Language = Annotated[Annotated[str, Field(pattern="^[a-zA-Z]{2,3}$")] | None, Blank]
Words = Annotated[Annotated[str, Field(max_length=2000)] | None, Blank]
Address = Annotated[Annotated[str, Field(max_length=4000)] | None, Blank]
UploadId = Annotated[Annotated[str, Field(max_length=64, pattern="^[A-Za-z0-9_-]+$")] | None, Blank]
Title = Annotated[Annotated[str, Field(max_length=500), AfterValidator(plain)] | None, Blank]


class ProcessForm(BaseModel):
    """The optional form fields of `POST /audio/process`; blank means not given."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)

    language: Language = Field(
        None, description="ISO 639-1 code of the spoken language; detected if left out", examples=["en"]
    )
    num_speakers: Speakers = Field(None, description="Exactly this many people speak")
    min_speakers: Speakers = Field(None, description="At least this many people speak")
    max_speakers: Speakers = Field(None, description="At most this many people speak")
    channels: Annotated[Literal["mix", "separate"], BeforeValidator(_blank_is_mix)] = Field(
        "mix", description="`separate`: every channel is a speaker of its own, as in a recorded call"
    )
    prompt: Words = Field(None, description="What the recording is about; names and terms in their spelling")
    hotwords: Words = Field(None, description="Rare words to expect, separated by spaces")
    title: Title = Field(None, description="A name for the conversation")
    # Swagger UI would fill these in with "string", and a recording has one source.
    url: Address = Field(
        None, description="Where the recording is, instead of sending it; needs INGEST_FROM_URL=on", examples=[""]
    )
    upload_id: UploadId = Field(None, description="A finished upload, instead of a file", examples=[""])
    callback_url: Address = Field(None, description="Told when the job ends; needs WEBHOOK_SECRET", examples=[""])

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        low, high, exact = self.min_speakers, self.max_speakers, self.num_speakers
        if low and high and low > high:
            raise ValueError(f"min_speakers ({low}) is greater than max_speakers ({high})")
        if exact and ((low and exact < low) or (high and exact > high)):
            raise ValueError(f"num_speakers ({exact}) is outside min_speakers and max_speakers")
        return self

    def to_options(self) -> ProcessOptions:
        language = self.language.lower() if self.language else None
        speech = SpeechOptions(
            transcribe=TranscribeOptions(language, self.prompt, self.hotwords),
            channels=Channels(self.channels),
            speakers=SpeakerCount(self.num_speakers, self.min_speakers, self.max_speakers),
        )
        return ProcessOptions(title=self.title, speech=speech)


class WordOut(BaseModel):
    word: str
    start: float | None = Field(description="Seconds from the start; null where the engine could not place the word")
    end: float | None
    probability: float | None


class SegmentOut(BaseModel):
    start: float = Field(description="Seconds from the start", examples=[0.52])
    end: float = Field(examples=[3.1])
    speaker: str = Field(examples=["Speaker 1"])
    text: str = Field(examples=["Good morning, everyone."])
    words: list[WordOut] = Field(description="Empty where the engine gives no word times")

    @classmethod
    def from_segment(cls, segment: Segment) -> SegmentOut:
        words = [
            WordOut(word=word.text.strip(), start=word.start_s, end=word.end_s, probability=word.probability)
            for word in segment.words
        ]
        return cls(
            start=round(segment.start_s, 3),
            end=round(segment.end_s, 3),
            speaker=segment.speaker or "",
            text=segment.text,
            words=words,
        )


class SpeakerStatsOut(BaseModel):
    speaking_time_s: float = Field(examples=[41.7])
    share: float = Field(description="Part of all speaking time, 0 to 1", examples=[0.58])
    word_count: int
    segment_count: int

    model_config = ConfigDict(from_attributes=True)


class TranscriptOut(BaseModel):
    speaker_count: int
    segments: list[SegmentOut]
    formatted_transcript: str = Field(examples=["Speaker 1: Good morning, everyone.\nSpeaker 2: Hello."])
    speaker_stats: dict[str, SpeakerStatsOut]

    @classmethod
    def from_transcript(
        cls, transcript: Transcript, stats: dict[str, SpeakerStats] | dict[str, Participant]
    ) -> TranscriptOut:
        return cls(
            speaker_count=len(transcript.speakers),
            segments=[SegmentOut.from_segment(segment) for segment in transcript.segments],
            formatted_transcript=to_text(transcript),
            speaker_stats={label: SpeakerStatsOut.model_validate(stat) for label, stat in stats.items()},
        )


class ProcessResponse(BaseModel):
    conversation_id: str = Field(examples=["conv_4f2c9a51d0b84e7f8a3b6c1d2e3f4a5b"])
    audio_file_path: str = Field(examples=["./uploads/conv_4f2c…/2026/01/15/meeting.wav"])
    transcript_file_path: str = Field(examples=["./uploads/conv_4f2c…/2026/01/15/conv_4f2c…_transcript.txt"])
    transcript: TranscriptOut
    message: str = Field(examples=["Successfully processed audio with 2 speakers and saved to storage"])
    duration_s: float = Field(description="Length of the recording", examples=[38.4])
    language: str | None = Field(description="ISO 639-1 code; null if nothing was said", examples=["en"])
    engines: dict[str, str] = Field(examples=[{"transcription": "moonshine tiny-en", "diarization": "community-1"}])
    timings_s: dict[str, float] = Field(description="Seconds per stage; stages side by side overlap")
    warnings: list[str] = Field(description="What did not go as configured, for example a fallback to local storage")

    @classmethod
    def from_row(cls, row: Conversation, timings_s: dict[str, float]) -> ProcessResponse:
        """Of a completed conversation that was loaded with everything."""
        count = row.speaker_count or 0
        speakers = f"{count} speaker{'' if count == 1 else 's'}"
        return cls(
            conversation_id=row.id,
            audio_file_path=row.recording_url or "",
            transcript_file_path=row.transcript_url or "",
            transcript=transcript_of(row),
            message=f"Successfully processed audio with {speakers} and saved to storage",
            duration_s=row.duration_s or 0.0,
            language=row.language,
            engines=row.engines or {},
            timings_s=timings_s,
            warnings=row.warnings or [],
        )


class ConversationSummary(BaseModel):
    """One row of the list."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    title: str | None
    status: ConversationStatus
    filename: str
    recording_url: str | None
    transcript_url: str | None
    duration_s: float | None
    language: str | None
    speaker_count: int | None
    engines: dict[str, str] | None
    error: str | None
    warnings: list[str] | None
    created_at: datetime
    completed_at: datetime | None


class ConversationPage(BaseModel):
    conversations: list[ConversationSummary]
    total: int
    limit: int
    offset: int

    @classmethod
    def from_rows(cls, rows: Sequence[Conversation], total: int, limit: int, offset: int) -> ConversationPage:
        return cls(
            conversations=[ConversationSummary.model_validate(row) for row in rows],
            total=total,
            limit=limit,
            offset=offset,
        )


class ParticipantOut(SpeakerStatsOut):
    label: str
    display_name: str | None = Field(description="The person's name, if the voice is known")


class StoredObjectOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    kind: str
    store: str
    locator: str
    size_bytes: int
    sha256: str
    content_type: str

    @classmethod
    def from_row(cls, row: StoredObjectRow) -> StoredObjectOut:
        return cls.model_validate(row)


class ConversationDetail(ConversationSummary):
    participants: list[ParticipantOut]
    objects: list[StoredObjectOut]
    transcript: TranscriptOut | None

    @classmethod
    def from_row(cls, row: Conversation) -> ConversationDetail:
        summary = ConversationSummary.model_validate(row).model_dump()
        return cls(
            **summary,
            participants=[ParticipantOut.model_validate(item) for item in row.participants],
            objects=[StoredObjectOut.from_row(item) for item in row.objects],
            transcript=transcript_of(row) if row.status == ConversationStatus.COMPLETED else None,
        )


class DeletionOut(BaseModel):
    """A delete that waits for a store."""

    model_config = ConfigDict(from_attributes=True)

    conversation_id: str
    left: list[str] = Field(
        description="Locators of what is still stored, or the name of a store that could not be asked what it has"
    )
    reason: str | None = Field(description="What that waits for; it is deleted without being asked for again")


class StorageInfoOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    storage_type: str = Field(description="Where a save goes now", examples=["local"])
    local_path: str = Field(examples=["./uploads"])
    s3_bucket: str | None
    s3_enabled: bool = Field(description="S3 is in use and answers")
    s3_endpoint: str | None
    s3_region: str | None
    reason: str | None = Field(description="Why S3 is configured but not in use")
    fallback: bool = Field(description="A save goes to the local folder when S3 fails")
    free_bytes: int | None = Field(description="Room on the local disk")
    breaker: Literal["closed", "open", "half_open"] | None = Field(
        description="closed: saves try S3; open: they do not; half_open: it is being asked; null: S3 is not in use"
    )
    cause: Literal["configuration", "full", "unavailable"] | None = Field(
        description="What kind of reason: at `configuration` waiting does not help"
    )
    retry_at: datetime | None = Field(description="When S3 is asked next")
    retry_in_s: float | None = Field(description="The same from now on", examples=[17.4])
    disk: Literal["ok", "low", "full"] = Field(description="low: below the soft limit; full: uploads are refused")
    disk_soft_limit_bytes: int
    disk_hard_limit_bytes: int
    drain_pending_objects: int | None = Field(
        None, description="Objects on the local disk that belong in S3; null: the database does not answer"
    )
    drain_pending_bytes: int | None = Field(None, description="Their size")
    drain_oldest_s: float | None = Field(None, description="How long the oldest of those that may move has waited")
    drain_parked_objects: int | None = Field(None, description="How many of them do not move until somebody looks")


class Health(BaseModel):
    status: str = Field(examples=["ok"])
    version: str
    ready: bool = Field(description="All models are loaded")
    engines: dict[str, str]
    storage: str = Field(examples=["local"])
    storage_reason: str | None = Field(description="Why S3 is configured but not in use")
    breaker: Literal["closed", "open", "half_open"] | None = Field(description="Whether saves try S3: closed, they do")
    disk: Literal["ok", "low", "full"] = Field(description="Room on the local disk; full: uploads are refused")
    database: str = Field(examples=["sqlite"])
    attribution: list[str] = Field(description="Whose models are in use, under which licence")


def transcript_of(row: Conversation) -> TranscriptOut:
    """The transcript of a conversation that was loaded with participants and segments."""
    stats = {item.display_name or item.label: item for item in row.participants}
    return TranscriptOut.from_transcript(to_transcript(row), stats)
