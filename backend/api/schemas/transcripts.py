"""A transcript in the API: words, segments, speakers."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from backend.domain.rendering.formats import to_text
from backend.domain.transcript import NamedSpeaker, Segment, Transcript, Word


class WordOut(BaseModel):
    word: str
    start: float | None = Field(description="Seconds from the start; null if the engine could not place the word")
    end: float | None
    probability: float | None

    @classmethod
    def from_word(cls, word: Word) -> WordOut:
        return cls(word=word.text.strip(), start=word.start_s, end=word.end_s, probability=word.probability)


class SegmentOut(BaseModel):
    start: float = Field(description="Seconds from the start", examples=[0.52])
    end: float = Field(examples=[3.1])
    speaker: str = Field(examples=["Speaker 1"])
    text: str = Field(examples=["Good morning, everyone."])
    words: list[WordOut] = Field(description="Empty if the engine gives no word times")

    @classmethod
    def from_segment(cls, segment: Segment) -> SegmentOut:
        return cls(
            start=round(segment.start_s, 3),
            end=round(segment.end_s, 3),
            speaker=segment.speaker or "",
            text=segment.text,
            words=[WordOut.from_word(word) for word in segment.words],
        )


class SpeakerStatsOut(BaseModel):
    speaking_time_s: float = Field(examples=[41.7])
    share: float = Field(description="Share of the total speaking time, 0 to 1", examples=[0.58])
    word_count: int
    segment_count: int

    model_config = ConfigDict(from_attributes=True)


class TranscriptOut(BaseModel):
    speaker_count: int
    segments: list[SegmentOut]
    formatted_transcript: str = Field(examples=["Speaker 1: Good morning, everyone.\nSpeaker 2: Hello."])
    speaker_stats: dict[str, SpeakerStatsOut]

    @classmethod
    def from_transcript(cls, transcript: Transcript, speakers: Sequence[NamedSpeaker]) -> TranscriptOut:
        return cls(
            speaker_count=len(transcript.speakers),
            segments=[SegmentOut.from_segment(segment) for segment in transcript.segments],
            formatted_transcript=to_text(transcript),
            speaker_stats={speaker.name: SpeakerStatsOut.model_validate(speaker) for speaker in speakers},
        )
