"""The states of a conversation. Pure."""

from __future__ import annotations

from enum import StrEnum


class ConversationStatus(StrEnum):
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
