"""The answer of `GET /health`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


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
