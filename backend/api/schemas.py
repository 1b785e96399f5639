"""What goes over the wire: requests in, responses out. `from_*` turn domain values and rows into them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from backend.database.models import Conversation, ConversationStatus, Participant, StoredObjectRow
from backend.database.repositories import to_transcript
from backend.domain.formats import to_text
from backend.domain.transcript import Segment, SpeakerCount, SpeakerStats, Transcript
from backend.engines.base import TranscribeOptions
from backend.services.processing import Processed, ProcessOptions
from backend.services.speech import Channels

MAX_SPEAKERS = 50


def _blank_is_none(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _blank_is_mix(value: object) -> object:
    return _blank_is_none(value) or "mix"


Blank = BeforeValidator(_blank_is_none)
Speakers = Annotated[Annotated[int, Field(ge=1, le=MAX_SPEAKERS)] | None, Blank]
Language = Annotated[Annotated[str, Field(pattern="^[a-zA-Z]{2,3}$")] | None, Blank]
Words = Annotated[Annotated[str, Field(max_length=2000)] | None, Blank]
Title = Annotated[Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$")] | None, Blank]


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
        return ProcessOptions(
            title=self.title,
            channels=Channels(self.channels),
            transcribe=TranscribeOptions(language, self.prompt, self.hotwords),
            speakers=SpeakerCount(self.num_speakers, self.min_speakers, self.max_speakers),
        )


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
    def from_processed(cls, done: Processed) -> ProcessResponse:
        count = len(done.speech.transcript.speakers)
        speakers = f"{count} speaker{'' if count == 1 else 's'}"
        return cls(
            conversation_id=done.conversation.id,
            audio_file_path=done.audio.locator,
            transcript_file_path=done.transcript.locator,
            transcript=TranscriptOut.from_transcript(done.speech.transcript, done.speech.stats),
            message=f"Successfully processed audio with {speakers} and saved to storage",
            duration_s=round(done.speech.duration_s, 3),
            language=done.speech.transcript.language,
            engines=done.speech.engines,
            timings_s=done.timings,
            warnings=list(done.warnings),
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


class Health(BaseModel):
    status: str = Field(examples=["ok"])
    version: str
    ready: bool = Field(description="All models are loaded")
    engines: dict[str, str]
    storage: str = Field(examples=["local"])
    database: str = Field(examples=["sqlite"])
    attribution: list[str] = Field(description="Whose models are in use, under which licence")


def transcript_of(row: Conversation) -> TranscriptOut:
    """The transcript of a conversation that was loaded with participants and segments."""
    stats = {item.display_name or item.label: item for item in row.participants}
    return TranscriptOut.from_transcript(to_transcript(row), stats)
