"""The tables: conversations with participants and segments, stored objects, people and their voices, jobs, workers,
webhook messages and uploads."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from backend.domain.states.conversations import ConversationStatus
from backend.domain.states.jobs import JobStatus
from backend.domain.states.webhooks import DeliveryStatus

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """Timezone-aware UTC on every database; SQLite keeps no zone, so it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo:
            return value
        return value.replace(tzinfo=UTC)


class VoiceVector(TypeDecorator[tuple[float, ...]]):
    """An embedding as the bytes of its float32 numbers, least significant byte first."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: tuple[float, ...] | None, _dialect: Dialect) -> bytes | None:
        return None if value is None else struct.pack(f"<{len(value)}f", *value)

    def process_result_value(self, value: bytes | None, _dialect: Dialect) -> tuple[float, ...] | None:
        return None if value is None else struct.unpack(f"<{len(value) // 4}f", value)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


class Conversation(Base):
    """One recording and its results. `recording_url` and `transcript_url` are locators."""

    __tablename__ = "conversations"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    title: Mapped[str | None] = mapped_column(String(500))
    status: Mapped[str] = mapped_column(String(16), default=ConversationStatus.PROCESSING)
    filename: Mapped[str] = mapped_column(String(255))
    recording_url: Mapped[str | None] = mapped_column(Text)
    transcript_url: Mapped[str | None] = mapped_column(Text)
    transcript: Mapped[str | None] = mapped_column(Text)
    duration_s: Mapped[float | None] = mapped_column(Float)
    language: Mapped[str | None] = mapped_column(String(16))
    speaker_count: Mapped[int | None] = mapped_column(Integer)
    engines: Mapped[dict[str, str] | None] = mapped_column(JSON)
    error: Mapped[str | None] = mapped_column(Text)
    warnings: Mapped[list[str] | None] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The tombstone: the conversation is no longer visible, and its objects are being deleted."""

    participants: Mapped[list[Participant]] = relationship(
        back_populates="conversation",
        cascade="all, delete-orphan",
        passive_deletes=True,
        order_by="Participant.position",
    )
    segments: Mapped[list[SegmentRow]] = relationship(
        back_populates="conversation",
        cascade="all, delete-orphan",
        passive_deletes=True,
        order_by="SegmentRow.position",
    )
    objects: Mapped[list[StoredObjectRow]] = relationship(
        back_populates="conversation", cascade="all, delete-orphan", passive_deletes=True, order_by="StoredObjectRow.id"
    )

    __table_args__ = (Index("ix_conversations_newest", "created_at", "id"), Index("ix_conversations_status", "status"))


class Participant(Base):
    """One speaker of one conversation; `label` is "Speaker N", `display_name` the name of who was recognised."""

    __tablename__ = "participants"

    id: Mapped[int] = mapped_column(primary_key=True)
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(Integer)
    label: Mapped[str] = mapped_column(String(64))
    display_name: Mapped[str | None] = mapped_column(String(200))
    speaking_time_s: Mapped[float] = mapped_column(Float)
    share: Mapped[float] = mapped_column(Float)
    word_count: Mapped[int] = mapped_column(Integer)
    segment_count: Mapped[int] = mapped_column(Integer)

    conversation: Mapped[Conversation] = relationship(back_populates="participants")

    __table_args__ = (UniqueConstraint("conversation_id", "label"),)


class SegmentRow(Base):
    """One attributed segment; `words` as in the JSON transcript, null where the engine gives none."""

    __tablename__ = "segments"

    id: Mapped[int] = mapped_column(primary_key=True)
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"))
    participant_id: Mapped[int] = mapped_column(ForeignKey("participants.id", ondelete="CASCADE"), index=True)
    position: Mapped[int] = mapped_column(Integer)
    start_s: Mapped[float] = mapped_column(Float)
    end_s: Mapped[float] = mapped_column(Float)
    text: Mapped[str] = mapped_column(Text)
    words: Mapped[list[dict[str, object]] | None] = mapped_column(JSON)

    conversation: Mapped[Conversation] = relationship(back_populates="segments")
    participant: Mapped[Participant] = relationship()

    __table_args__ = (UniqueConstraint("conversation_id", "position"),)


class StoredObjectRow(Base):
    """Where one object is and how to know that it is the right one. The locator is the truth about the place.

    `version` is the store's own name for this state of the object, where it has one. `parked` says why an object that
    should drain to S3 stays where it is.
    """

    __tablename__ = "stored_objects"

    id: Mapped[int] = mapped_column(primary_key=True)
    conversation_id: Mapped[str] = mapped_column(ForeignKey("conversations.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    store: Mapped[str] = mapped_column(String(16))
    locator: Mapped[str] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    content_type: Mapped[str] = mapped_column(String(255))
    version: Mapped[str | None] = mapped_column(String(255))
    parked: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    conversation: Mapped[Conversation] = relationship(back_populates="objects")

    __table_args__ = (Index("ix_stored_objects_store", "store", "id"),)


class Person(Base):
    """A person whose voice may be recognised. Names are unique, so that no transcript shows two people as one."""

    __tablename__ = "people"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    prints: Mapped[list[VoicePrint]] = relationship(
        back_populates="person", cascade="all, delete-orphan", passive_deletes=True, order_by="VoicePrint.id"
    )


class VoicePrint(Base):
    """How a person sounded in one recording. `model` names the engine: prints of different engines do not compare."""

    __tablename__ = "voice_prints"

    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"), index=True)
    conversation_id: Mapped[str | None] = mapped_column(ForeignKey("conversations.id", ondelete="SET NULL"), index=True)
    embedding: Mapped[tuple[float, ...]] = mapped_column(VoiceVector)
    model: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)

    person: Mapped[Person] = relationship(back_populates="prints")


class ParticipantVoice(Base):
    """How a participant sounds, and who that is, if known. Stored with KNOWN_VOICES=on only; goes with the person."""

    __tablename__ = "participant_voices"

    participant_id: Mapped[int] = mapped_column(ForeignKey("participants.id", ondelete="CASCADE"), primary_key=True)
    person_id: Mapped[str | None] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"), index=True)
    embedding: Mapped[tuple[float, ...]] = mapped_column(VoiceVector)

    participant: Mapped[Participant] = relationship()


class Job(Base):
    """One recording that is being turned into a conversation.

    `attempt` counts every start and is the fencing token: only the attempt that the row names may write a result.
    `crashes` counts the attempts in a row that ended with their process and had finished no step. `recording` is a file
    name in the spool, or the locator of an object if workers share a store; `error` is a problem (RFC 9457).
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    conversation_id: Mapped[str] = mapped_column(String(64), index=True)
    status: Mapped[str] = mapped_column(String(16), default=JobStatus.QUEUED)
    queue: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int] = mapped_column(Integer, default=0)
    stage: Mapped[str | None] = mapped_column(String(16))
    progress: Mapped[float] = mapped_column(Float, default=0.0)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    crashes: Mapped[int] = mapped_column(Integer, default=0)
    worker_id: Mapped[str | None] = mapped_column(String(128), index=True)
    owner: Mapped[str] = mapped_column(String(100), default="")
    recording: Mapped[str | None] = mapped_column(Text)
    filename: Mapped[str] = mapped_column(String(255))
    content_type: Mapped[str | None] = mapped_column(String(255))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    expected_s: Mapped[float | None] = mapped_column(Float)
    options: Mapped[dict[str, object]] = mapped_column(JSON)
    idempotency_key: Mapped[str | None] = mapped_column(String(255))
    callback_url: Mapped[str | None] = mapped_column(Text)
    result: Mapped[dict[str, object] | None] = mapped_column(JSON)
    error: Mapped[dict[str, object] | None] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        UniqueConstraint("owner", "idempotency_key"),
        Index("ix_jobs_newest", "created_at", "id"),
        Index("ix_jobs_status", "status", "queue"),
    )


class Worker(Base):
    """A process that runs jobs, and its last heartbeat."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    boot_id: Mapped[str] = mapped_column(String(64))
    pid: Mapped[int] = mapped_column(Integer)
    queues: Mapped[list[str]] = mapped_column(JSON)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    heartbeat_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class Delivery(Base):
    """One message to a webhook; its id is the `webhook-id` that the receiver sees."""

    __tablename__ = "deliveries"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    url: Mapped[str] = mapped_column(Text)
    event: Mapped[str] = mapped_column(String(32))
    status: Mapped[str] = mapped_column(String(16), default=DeliveryStatus.PENDING)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    last_status: Mapped[int | None] = mapped_column(Integer)
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    delivered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class UploadRow(Base):
    """A resumable upload. `spool` is its file in the spool; `offset_bytes` what has safely arrived there."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    owner: Mapped[str] = mapped_column(String(100), default="")
    filename: Mapped[str] = mapped_column(String(255))
    content_type: Mapped[str | None] = mapped_column(String(255))
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    offset_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    spool: Mapped[str | None] = mapped_column(String(255))
    s3_key: Mapped[str | None] = mapped_column(Text)
    s3_upload_id: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, str]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class ScheduleRun(Base):
    """One run of periodic work; `ended_at` and `ok` are null while it runs, or if its process died.

    `claim` is set for work that only one process may do at a time: it names the run before this one, so that of several
    processes that want to follow it, only one can.
    """

    __tablename__ = "schedule_runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    host: Mapped[str] = mapped_column(String(255))
    worker_id: Mapped[str] = mapped_column(String(128))
    claim: Mapped[str | None] = mapped_column(String(320), unique=True)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ok: Mapped[bool | None] = mapped_column(Boolean)
    summary: Mapped[dict[str, object] | None] = mapped_column(JSON)

    __table_args__ = (Index("ix_schedule_runs_newest", "kind", "id"),)
