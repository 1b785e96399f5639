"""A transcript as the API shows it: words, segments, speakers."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from backend.database import transcripts
from backend.database.models import Conversation, Participant
from backend.domain.formats import to_text
from backend.domain.transcript import Segment, SpeakerStats, Transcript


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


def transcript_of(row: Conversation) -> TranscriptOut:
    """The transcript of a conversation that was loaded with participants and segments."""
    stats = {item.display_name or item.label: item for item in row.participants}
    return TranscriptOut.from_transcript(transcripts.read(row), stats)
