"""Databases as older versions left them: any schema there ever was, rows in every table, and the files they name."""

from __future__ import annotations

import hashlib
import shutil
import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, MetaData, Table, select

from backend.database.migrate import alembic_config
from backend.services.jobs.heartbeat import this_process

Row = Mapping[str, object]

REVISIONS = [script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()][::-1]

CAME_AT = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
VOICE = struct.pack("<3f", 0.5, 0.25, 0.125)
OPTIONS: Mapping[str, object] = {
    "title": "Library",
    "speech": {
        "transcribe": {"language": "en", "prompt": None, "hotwords": None},
        "channels": "mix",
        "speakers": {"exact": 2, "minimum": None, "maximum": None},
    },
}
PARTIAL = b"the first bytes of an upload"
MADE_UP: Mapping[type, object] = {
    str: "made up",
    int: 1,
    float: 0.5,
    bool: True,
    bytes: b"made up",
    datetime: CAME_AT,
    dict: {"made": "up"},
    object: {"made": "up"},  # JSON, as SQLAlchemy reflects it
}


def upgrade_to(connection: Connection, revision: str) -> None:
    """Run the migrations up to one and no further."""
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
    connection.commit()


def fill(connection: Connection, rows: Mapping[str, Sequence[Row]]) -> None:
    """Write these rows, as far as the schema has their tables and columns; another table gets one made-up row."""
    metadata = MetaData()
    metadata.reflect(connection)
    for table in metadata.sorted_tables:
        if table.name != "alembic_version":
            for row in rows.get(table.name, ({},)):
                connection.execute(table.insert().values(_values(connection, table, row)))
    connection.commit()


def read(connection: Connection, like: Mapping[str, Sequence[Row]] | None = None) -> dict[str, list[dict[str, object]]]:
    """Every row by its table; with `like`, only the tables and columns that it has."""
    metadata = MetaData()
    metadata.reflect(connection)
    return {
        table.name: [
            {name: value for name, value in row.items() if like is None or name in like[table.name][0]}
            for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()
        ]
        for table in metadata.sorted_tables
        if (like is None or table.name in like) and table.name != "alembic_version"
    }


def write_files(folder: Path, recording: Path) -> None:
    """The files under an upload folder that the rows of `rows_of` name."""
    kept = folder / ".spool" / "kept"
    uploads = folder / ".spool" / "uploads"
    stored = stored_audio(folder)
    for place in (kept, uploads, stored.parent):
        place.mkdir(parents=True)
    shutil.copyfile(recording, stored)
    stored.with_suffix(".txt").write_text("Speaker 1: Good morning.\n")
    for name in ("job_waiting", "job_running", "job_failed"):
        shutil.copyfile(recording, kept / name)
    (uploads / "partial.part").write_bytes(PARTIAL)


def stored_audio(folder: Path) -> Path:
    return folder / "conv_done" / "2026" / "01" / "15" / "meeting.wav"


def rows_of(folder: Path, recording: Path) -> dict[str, list[Row]]:
    """Rows of a service that was stopped at work. A column that a schema needs and no row gives is made up."""
    conversations: list[Row] = [
        {"id": "conv_done", "status": "completed", "filename": "meeting.wav", **_done(folder)},
        {"id": "conv_failed", "status": "failed", "filename": "meeting.wav", "error": "The engine broke."},
        {"id": "conv_waiting", "status": "processing", "filename": "meeting.wav"},
        {"id": "conv_running", "status": "processing", "filename": "meeting.wav"},
    ]
    # An old form of 0002 kept voices in the rows of participants.
    voices: list[Row] = [{"voice": VOICE, "person_id": "person_anna"}, {"voice": None, "person_id": None}]
    return {
        "conversations": conversations,
        "participants": [_participant(number) | dict(voice) for number, voice in enumerate(voices)],
        "segments": [_segment(number) for number in range(2)],
        "stored_objects": [_object("audio", stored_audio(folder), "audio/wav"), _transcript(folder)],
        "people": [{"id": "person_anna", "name": "Anna"}],
        "voice_prints": [{"person_id": "person_anna", "conversation_id": "conv_done", "embedding": VOICE}],
        "participant_voices": [{"participant_id": 1, "person_id": "person_anna", "embedding": VOICE}],
        "workers": [_dead_worker()],
        "jobs": _jobs(recording),
        "uploads": [_upload()],
        "deliveries": [{"id": "msg_1", "job_id": "job_done", "event": "job.completed", "status": "delivered"}],
    }


def _done(folder: Path) -> Row:
    return {
        "title": "Library",
        "recording_url": str(stored_audio(folder)),
        "transcript_url": str(stored_audio(folder).with_suffix(".txt")),
        "transcript": "Speaker 1: Good morning.\nSpeaker 2: Hello.",
        "duration_s": 2.0,
        "language": "en",
        "speaker_count": 2,
        "engines": {"transcription": "an old one"},
        "warnings": ["It was quiet."],
        "completed_at": CAME_AT,
    }


def _participant(number: int) -> dict[str, object]:
    name = "Anna" if number == 0 else None
    return {"conversation_id": "conv_done", "position": number, "label": f"Speaker {number + 1}", "display_name": name}


def _segment(number: int) -> Row:
    text = ("Good morning.", "Hello.")[number]
    words = [{"word": f" {text}", "start": float(number), "end": number + 0.8, "probability": 0.9}]
    place = {"participant_id": number + 1, "position": number, "start_s": float(number), "end_s": number + 0.8}
    return {"conversation_id": "conv_done", "text": text, "words": words, **place}


def _transcript(folder: Path) -> Row:
    return _object("transcript", stored_audio(folder).with_suffix(".txt"), "text/plain")


def _object(kind: str, path: Path, content_type: str) -> Row:
    return {"conversation_id": "conv_done", "kind": kind, "store": "local", "content_type": content_type} | _file(path)


def _file(path: Path) -> dict[str, object]:
    content = path.read_bytes()
    return {"locator": str(path), "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _jobs(recording: Path) -> list[Row]:
    """One of each status; those that may still be processed have their recording in the spool."""
    file = _file(recording)
    states: dict[str, dict[str, object]] = {
        "done": {"status": "completed", "recording": None, "finished_at": CAME_AT, "idempotency_key": "once"},
        "failed": {"status": "failed", "error": {"kind": "ProcessingFailed", "detail": "The engine broke."}},
        "cancelled": {"status": "cancelled", "recording": None, "finished_at": CAME_AT},
        "waiting": {"status": "queued"},
        "running": {"status": "running", "worker_id": "dead", "attempt": 1, "started_at": CAME_AT},
    }
    common = {"queue": "asr", "owner": "", "filename": "meeting.wav", "options": OPTIONS, "attempt": 0, "crashes": 0}
    common |= {"size_bytes": file["size_bytes"], "sha256": file["sha256"], "progress": 0.0, "priority": 1}
    ids = {
        name: {"id": f"job_{name}", "conversation_id": f"conv_{name}", "recording": f"job_{name}"} for name in states
    }
    return [{**common, **ids[name], **state} for name, state in states.items()]


def _dead_worker() -> Row:
    """Of this machine, so that a new process need not wait for its silence."""
    this = this_process()
    return {"id": "dead", "host": this.host, "boot_id": this.boot_id, "pid": this.pid, "queues": ["asr"]}


def _upload() -> Row:
    sizes = {"size_bytes": 1000, "offset_bytes": len(PARTIAL), "spool": "partial.part"}
    return {"id": "upload_1", "owner": "", "details": {}, "expires_at": CAME_AT + timedelta(days=2), **sizes}


def _values(connection: Connection, table: Table, row: Row) -> dict[str, object]:
    values = {name: value for name, value in row.items() if name in table.columns}
    for column in table.columns:
        needed = not row or not column.nullable
        if column.name not in row and needed and column is not table.autoincrement_column:
            values[column.name] = _made_up(connection, column)
    return values


def _made_up(connection: Connection, column: Column[Any]) -> object:
    for key in column.foreign_keys:
        return connection.execute(select(key.column)).scalars().first()
    return MADE_UP[column.type.python_type]
