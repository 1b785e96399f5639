"""The answer of `GET /health`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Confinement(BaseModel):
    landlock: int = Field(description="Version of the kernel's Landlock; 0: not in use")
    seccomp: bool = Field(description="Only the system calls that decoding needs are let through")
    no_new_privs: bool
    user_namespace: bool = Field(description="Users, network and shared memory of its own")
    unprivileged: bool = Field(description="Not root")
    network: Literal["namespace", "seccomp", "nothing"] = Field(description="What keeps it from the network")


class Health(BaseModel):
    status: str = Field(examples=["ok"])
    version: str
    ready: bool = Field(description="All models are loaded")
    engines: dict[str, str]
    storage: str = Field(examples=["local"])
    storage_reason: str | None = Field(description="Why S3 is configured but not in use")
    breaker: Literal["closed", "open", "half_open"] | None = Field(description="Whether saves try S3: closed, they do")
    disk: Literal["ok", "low", "full"] = Field(description="Space on the local disk; full: uploads are refused")
    confinement: Confinement = Field(description="What locks in the process that decodes recordings, on this machine")
    database: str = Field(examples=["sqlite"])
    attribution: list[str] = Field(description="Whose models are in use, under which licence")
