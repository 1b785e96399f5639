"""The database as a harness reads it, behind the application's back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class JobRow:
    id: str
    conversation_id: str
    status: str
    recording: str | None
    sha256: str
    error: Any


@dataclass(frozen=True, slots=True)
class ObjectRow:
    conversation_id: str
    kind: str
    store: str
    locator: str
    size_bytes: int
    sha256: str
    parked: str | None


@dataclass(frozen=True, slots=True)
class Rows:
    """Everything that an audit needs, as of one moment.

    Attributes:
        conversations: id → its status, and whether it is being deleted.
        jobs: by the id of their conversation.
        objects: likewise.
    """

    conversations: dict[str, tuple[str, bool]]
    jobs: dict[str, JobRow]
    objects: dict[str, list[ObjectRow]]

    @property
    def locators(self) -> set[str]:
        return {item.locator for items in self.objects.values() for item in items}

    @property
    def waiting(self) -> dict[str, int]:
        """What is still to be done, by kind; nothing once all is at rest."""
        jobs = sum(job.status in ("queued", "running") for job in self.jobs.values())
        buried = [name for name, (_, is_buried) in self.conversations.items() if is_buried]
        local = [item for name, items in self.objects.items() if name not in buried for item in items]
        waits = {"jobs": jobs, "deletes": len(buried), "drain": sum(item.store == "local" for item in local)}
        return {name: count for name, count in waits.items() if count}


def read_rows(connection: Any) -> Rows:
    """Everything, through a connection to SQLite or PostgreSQL."""
    conversations = connection.execute("SELECT id, status, deleted_at FROM conversations").fetchall()
    jobs = connection.execute("SELECT id, conversation_id, status, recording, sha256, error FROM jobs").fetchall()
    objects = connection.execute(
        "SELECT conversation_id, kind, store, locator, size_bytes, sha256, parked FROM stored_objects"
    ).fetchall()
    by_conversation: dict[str, list[ObjectRow]] = {}
    for item in objects:
        by_conversation.setdefault(item[0], []).append(ObjectRow(*item))
    return Rows(
        {name: (status, deleted_at is not None) for name, status, deleted_at in conversations},
        {item[1]: JobRow(*item) for item in jobs},
        by_conversation,
    )
