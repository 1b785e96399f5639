"""Transcription models in the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, Field

from backend.services.speech.models import ModelState


class ModelOut(BaseModel):
    name: str = Field(description="What to give as `model`", examples=["base"])
    engine: str = Field(examples=["faster-whisper"])
    default: bool = Field(description="Hears recordings whose request names no model and no language")
    loaded: bool = Field(description="In memory")
    size_bytes: int = Field(description="Size of its files, which is about what it takes in memory")
    languages: list[str] = Field(description="ISO 639-1 codes of the languages it knows", examples=[["de", "en"]])
    word_times: bool = Field(description="Every word comes with its time; otherwise only every segment does")
    times_real_time: float | None = Field(
        description="Seconds of audio that this process has transcribed with it per second; null before the first"
    )

    @classmethod
    def from_state(cls, state: ModelState) -> Self:
        model = state.model
        return cls(
            name=model.name,
            engine=model.engine,
            default=state.default,
            loaded=state.loaded,
            size_bytes=model.size_bytes,
            languages=sorted(model.languages),
            word_times=model.word_times,
            times_real_time=state.times_real_time,
        )


class ModelList(BaseModel):
    models: list[ModelOut] = Field(description="Those on this server's disk, the best first")

    @classmethod
    def from_states(cls, states: Sequence[ModelState]) -> Self:
        return cls(models=[ModelOut.from_state(state) for state in states])
