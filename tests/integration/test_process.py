"""POST /audio/process with scripted engines: the answer, the files, the rows, and every kind of bad input."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from sqlalchemy import select

from backend.config import Settings
from backend.database.models import Conversation, Participant, SegmentRow, StoredObjectRow
from backend.domain.attribution import attribute
from backend.domain.transcript import Transcription
from backend.engines.base import TranscribeOptions
from backend.engines.lazy import Lazy
from backend.engines.scripted import ScriptedTranscriber
from backend.errors import EngineUnavailable, InvalidInput
from backend.services.speech.pipeline import SpeechPipeline
from backend.services.storage import StorageConfig
from backend.wiring.services import Services
from tests.conftest import HEARD, api, scripted_speech
from tests.support.media import silence, tone, write
from tests.support.processing import assert_problem, post, row_count
from tests.support.random_models import vowels

pytestmark = pytest.mark.anyio

Files = Callable[[], list[str]]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "meeting.wav", tone(2.0))


async def test_the_answer_says_who_said_what_and_where_it_is(client: httpx.AsyncClient, recording: Path) -> None:
    answer = await post(client, recording, title="Standup")
    assert answer.status_code == 200
    body = answer.json()
    assert re.fullmatch(r"conv_[0-9a-f]{32}", body["conversation_id"])
    assert body["transcript"]["speaker_count"] == 2
    assert body["transcript"]["formatted_transcript"] == "Speaker 1: Good morning.\nSpeaker 2: Hello."
    first = body["transcript"]["segments"][0]
    assert (first["start"], first["end"], first["speaker"], first["text"]) == (0.0, 1.0, "Speaker 1", "Good morning.")
    assert first["words"][0] == {"word": "Good", "start": 0.1, "end": 0.4, "probability": 0.9}
    stats = body["transcript"]["speaker_stats"]
    assert list(stats) == ["Speaker 1", "Speaker 2"]
    assert stats["Speaker 1"] == {"speaking_time_s": 1.0, "share": 0.5263, "word_count": 2, "segment_count": 1}
    assert body["message"] == "Successfully processed audio with 2 speakers and saved to storage"
    assert body["duration_s"] == 2.0 and body["language"] == "en" and body["warnings"] == []
    assert body["engines"] == {"transcription": "scripted", "diarization": "scripted"}
    assert body["coverage"] == {"speech_s": 0.0, "without_words_s": 0.0, "without_words": []}, "a tone is no speech"
    assert {"decode", "diarize", "transcribe", "attribute", "store", "total"} <= set(body["timings_s"])


async def test_speech_without_words_is_a_warning_with_seconds(settings: Settings, tmp_path: Path) -> None:
    nothing = SpeechPipeline(Lazy("deaf", lambda: ScriptedTranscriber(Transcription())), None, max_audio_s=60)
    async with api(settings, nothing) as (client, _):
        samples = np.concatenate([np.zeros(32_000, dtype=np.float32), vowels(6)])
        body = (await post(client, write(tmp_path / "speech.wav", samples[None]))).json()
        metrics = (await client.get("/metrics")).text
    missing_s = body["coverage"]["without_words_s"]
    assert 4 < missing_s <= body["coverage"]["speech_s"] < 7
    [warning] = body["warnings"]
    assert warning.startswith(f"{missing_s:.1f} of ") and "s of speech have no words" in warning
    assert f"aperta_speech_without_words_seconds_total {missing_s}" in metrics


async def test_attribution_has_a_thread_and_a_stage_of_its_own(
    client: httpx.AsyncClient, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def attribute_slowly(*heard: Any) -> Any:
        threads.append(threading.current_thread())
        time.sleep(0.05)
        return attribute(*heard)

    monkeypatch.setattr("backend.services.speech.pipeline.attribute", attribute_slowly)
    answer = await post(client, recording)
    assert answer.json()["timings_s"]["attribute"] >= 0.05
    assert threads and threading.main_thread() not in threads


async def test_audio_transcript_and_metadata_are_really_there(
    client: httpx.AsyncClient, recording: Path, stored_files: Files, tmp_path: Path
) -> None:
    body = (await post(client, recording)).json()
    conversation = body["conversation_id"]
    day = body["audio_file_path"].split(f"{conversation}/")[1].removesuffix("/meeting.wav")
    assert re.fullmatch(r"\d{4}/\d{2}/\d{2}", day)
    folder = f"{conversation}/{day}"
    assert stored_files() == sorted(
        [f"{folder}/{conversation}_transcript.txt", f"{folder}/meeting.wav", f"{folder}/meeting_metadata.json"]
    )
    assert Path(body["audio_file_path"]).read_bytes() == recording.read_bytes()
    assert Path(body["transcript_file_path"]).read_text() == body["transcript"]["formatted_transcript"]
    metadata = json.loads((tmp_path / "uploads" / folder / "meeting_metadata.json").read_text())
    assert metadata["sha256"] == hashlib.sha256(recording.read_bytes()).hexdigest()
    assert metadata["duration_s"] == 2.0 and metadata["speaker_count"] == 2
    assert metadata["conversation_id"] == conversation and metadata["size_bytes"] == recording.stat().st_size


async def test_rows_are_written_for_conversation_participants_segments_and_objects(
    client: httpx.AsyncClient, services: Services, recording: Path
) -> None:
    body = (await post(client, recording, title="Standup")).json()
    async with services.database.transaction() as session:
        conversations = await session.execute(select(Conversation).filter(Conversation.status == "completed"))
        [conversation] = conversations.scalars().all()
        assert conversation.transcript == body["transcript"]["formatted_transcript"]
        assert conversation.recording_url == body["audio_file_path"]
        assert conversation.title == "Standup" and conversation.speaker_count == 2
        assert conversation.completed_at is not None and conversation.completed_at >= conversation.created_at
        assert conversation.created_at.tzinfo is not None
        participants = (await session.execute(select(Participant).order_by(Participant.position))).scalars().all()
        assert [(p.label, p.word_count) for p in participants] == [("Speaker 1", 2), ("Speaker 2", 1)]
        segments = (await session.execute(select(SegmentRow).order_by(SegmentRow.position))).scalars().all()
        assert [(s.text, s.participant_id) for s in segments] == [
            ("Good morning.", participants[0].id),
            ("Hello.", participants[1].id),
        ]
        objects = (await session.execute(select(StoredObjectRow))).scalars().all()
        assert sorted((o.kind, o.store) for o in objects) == [
            ("audio", "local"),
            ("metadata", "local"),
            ("transcript", "local"),
        ]


async def test_options_reach_the_engines(settings: Settings, recording: Path) -> None:
    speech = scripted_speech()
    async with api(settings, speech) as (client, _):
        answer = await post(
            client, recording, language="DE", prompt="Aperta", hotwords="pyannote", min_speakers="2", max_speakers="4"
        )
        assert answer.status_code == 200
    diarizer = speech._diarizer.get()  # type: ignore[union-attr]
    with speech.models.lease(speech.models.default) as transcriber:
        options = transcriber.options[0]  # type: ignore[attr-defined]
    assert (options.language, options.prompt, options.hotwords) == ("de", "Aperta", "pyannote")
    speakers = diarizer.speakers[0]  # type: ignore[attr-defined]
    assert (speakers.exact, speakers.minimum, speakers.maximum) == (None, 2, 4)


async def test_silence_is_an_empty_transcript_without_speakers(settings: Settings, tmp_path: Path) -> None:
    async with api(settings, scripted_speech(Transcription(), ())) as (client, services):
        answer = await post(client, write(tmp_path / "quiet.wav", silence(1.0)))
        assert answer.status_code == 200
        transcript = answer.json()["transcript"]
        assert transcript == {"speaker_count": 0, "segments": [], "formatted_transcript": "", "speaker_stats": {}}
        conversation = answer.json()["conversation_id"]
        assert (await client.get(f"/conversations/{conversation}/transcript?format=vtt")).text == "WEBVTT\n\n"
        assert await row_count(services) == 1


@pytest.mark.parametrize(
    ("name", "stored_as"),
    [
        ("../../etc/passwd.wav", "passwd.wav"),
        ("..\\..\\boot.wav", "boot.wav"),
        (".hidden.wav", "hidden.wav"),
        ("Besprechung März 会議.wav", "Besprechung März 会議.wav"),
        ("", "recording"),
    ],
)
async def test_file_names_are_data_and_never_a_path(
    client: httpx.AsyncClient, recording: Path, stored_files: Files, name: str, stored_as: str
) -> None:
    files = {"file": (name or " ", recording.read_bytes(), "audio/wav")}
    answer = await client.post("/audio/process", files=files)
    assert answer.status_code == 200, answer.text
    assert Path(answer.json()["audio_file_path"]).name == stored_as
    assert len(stored_files()) == 3 and all(file.startswith("conv_") for file in stored_files())


async def test_a_long_file_name_is_shortened_and_keeps_its_extension(
    client: httpx.AsyncClient, recording: Path
) -> None:
    answer = await post(client, recording, name="n" * 300 + ".wav")
    assert answer.status_code == 200
    stored = Path(answer.json()["audio_file_path"])
    assert len(stored.name.encode()) <= 255 and stored.suffix == ".wav" and stored.is_file()


async def test_a_recording_is_kept_when_an_engine_breaks(settings: Settings, recording: Path) -> None:
    async with api(settings, scripted_speech(RuntimeError("out of memory"))) as (client, _):
        answer = await post(client, recording)
        assert_problem(answer, 500, "out of memory")
        conversation = (await client.get(f"/conversations/{answer.json()['conversation_id']}")).json()
        assert conversation["status"] == "failed" and "out of memory" in conversation["error"]
        assert Path(conversation["recording_url"]).read_bytes() == recording.read_bytes()
        transcript = await client.get(f"/conversations/{conversation['id']}/transcript")
        assert transcript.status_code == 409


async def test_both_branches_end_before_an_error_of_one_is_reported(settings: Settings, recording: Path) -> None:
    async with api(settings, scripted_speech(turns=EngineUnavailable("no model"))) as (client, _):
        assert_problem(await post(client, recording), 500, "no model")


async def test_without_room_for_the_result_the_recording_waits_for_another_try(
    settings: Settings, recording: Path, tmp_path: Path
) -> None:
    broken = settings.model_copy(update={"storage": StorageConfig(upload_dir=str(tmp_path / "uploads"))})
    async with api(broken) as (client, services):
        blocker = tmp_path / "uploads"
        for child in blocker.iterdir():
            if child.name != ".spool":
                child.unlink()
        original = services.storage.save_transcript

        async def refuse(*_args: object, **_kwargs: object) -> None:
            from backend.errors import StorageFull

            raise StorageFull("no space left")

        services.storage.save_transcript = refuse  # type: ignore[method-assign, assignment]
        answer = await post(client, recording)
        services.storage.save_transcript = original  # type: ignore[method-assign]
        assert_problem(answer, 507, "no space left")
        assert answer.headers["retry-after"]
        [kept] = [path for path in blocker.rglob("*") if path.is_file()]
        [job] = (await client.get("/jobs?status=failed")).json()["jobs"]
        assert kept.name == job["id"] and kept.read_bytes() == recording.read_bytes()
        assert (await client.post(f"/jobs/{job['id']}/retry")).status_code == 202
        while (again := (await client.get(f"/jobs/{job['id']}")).json())["status"] in ("queued", "running"):
            await asyncio.sleep(0.05)
        assert again["status"] == "completed" and not kept.exists()


async def test_separate_channels_are_one_speaker_each(settings: Settings, tmp_path: Path) -> None:
    stereo = np.concatenate([tone(2.0, frequency_hz=300), tone(2.0, frequency_hz=700)])
    path = write(tmp_path / "call.wav", stereo)
    async with api(settings) as (client, _):
        body = (await post(client, path, channels="separate")).json()
        assert body["transcript"]["speaker_count"] == 2
        assert body["engines"]["diarization"] == "channels"
        assert [item["text"] for item in body["transcript"]["segments"]] == ["Good morning. Hello."] * 2
        mixed = (await post(client, path, channels="mix")).json()
        assert mixed["engines"]["diarization"] == "scripted"
        assert_problem(await post(client, path, channels="left"), 422, "channels")


async def test_a_recording_with_equal_channels_is_diarized_even_if_separation_was_asked_for(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    body = (await post(client, write(tmp_path / "mono.wav", tone(2.0, channels=2)), channels="separate")).json()
    assert body["engines"]["diarization"] == "scripted" and body["transcript"]["speaker_count"] == 2


async def test_a_conversation_that_is_deleted_while_it_is_processed_stays_deleted(
    settings: Settings, recording: Path, stored_files: Files
) -> None:
    heard = threading.Event()
    resume = threading.Event()

    class SlowTranscriber(ScriptedTranscriber):
        def transcribe(self, *arguments: object, **more: object) -> Transcription:
            heard.set()
            assert resume.wait(10)
            return super().transcribe(*arguments, **more)  # type: ignore[arg-type]

    speech = SpeechPipeline(Lazy("slow", lambda: SlowTranscriber(HEARD)), None, max_audio_s=60)
    answers: list[httpx.Response] = []
    async with api(settings, speech) as (client, services):

        async def send() -> None:
            answers.append(await post(client, recording))

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            await anyio.to_thread.run_sync(heard.wait)
            [running] = (await client.get("/conversations?status=processing")).json()["conversations"]
            assert (await client.delete(f"/conversations/{running['id']}")).status_code == 204
            resume.set()
        assert_problem(answers[0], 409, "deleted")
        assert await row_count(services) == 0 and stored_files() == []


async def test_a_language_the_engine_does_not_know_is_refused_before_any_work(
    settings: Settings, recording: Path
) -> None:
    class English(ScriptedTranscriber):
        def check(self, options: TranscribeOptions) -> None:
            raise InvalidInput(f"no {options.language}")

    speech = SpeechPipeline(Lazy("english", lambda: English(RuntimeError("never"))), None, max_audio_s=60)
    async with api(settings, speech) as (client, services):
        assert_problem(await post(client, recording, language="de"), 422, "no de")
        assert await row_count(services) == 0


@pytest.mark.parametrize("claimed", ["application/octet-stream", "audio/" + "x" * 400, "text/html", ""])
async def test_a_content_type_that_is_no_media_type_is_guessed_from_the_name(
    client: httpx.AsyncClient, tmp_path: Path, claimed: str
) -> None:
    content = write(tmp_path / "a.flac", tone(1.0), codec="flac").read_bytes()
    answer = await client.post("/audio/process", files={"file": ("a.flac", content, claimed)})
    conversation = (await client.get(f"/conversations/{answer.json()['conversation_id']}")).json()
    assert {item["content_type"] for item in conversation["objects"] if item["kind"] == "audio"} <= {
        "audio/flac",
        "audio/x-flac",
    }


async def test_a_result_the_database_refuses_keeps_the_recording_and_says_failed(
    client: httpx.AsyncClient, recording: Path, tmp_path: Path, stored_files: Files
) -> None:
    with closing(sqlite3.connect(tmp_path / "rows.db")) as rows:
        rows.execute("CREATE TRIGGER refuse BEFORE INSERT ON participants BEGIN SELECT RAISE(ABORT, 'refused'); END")
    answer = await post(client, recording)
    assert_problem(answer, 500, "refused")
    assert [Path(path).name for path in stored_files()] == ["meeting.wav", "meeting_metadata.json"]
    [row] = (await client.get("/conversations")).json()["conversations"]
    assert row["status"] == "failed" and "refused" in row["error"]


async def test_no_room_for_the_decoded_samples_is_a_507(settings: Settings, tmp_path: Path) -> None:
    small = tmp_path / "uploads"
    small.mkdir()
    mounted = await anyio.run_process(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("needs root, to mount a small file system")
    try:
        speech = SpeechPipeline(
            Lazy("scripted", lambda: ScriptedTranscriber(HEARD)), None, max_audio_s=600, spool_dir=small
        )
        limited = settings.storage.model_copy(update={"disk_hard_limit_bytes": 0})
        async with api(settings.model_copy(update={"storage": limited}), speech) as (client, _):
            path = write(tmp_path / "long.flac", silence(300.0), codec="flac")
            assert_problem(await post(client, path), 507, "decoded samples")
            assert (await client.get("/audio/storage-info")).status_code == 200
            [job] = (await client.get("/jobs")).json()["jobs"]
            assert job["status"] == "failed" and job["error"]["status"] == 507
    finally:
        await anyio.run_process(["umount", "-l", str(small)])


async def test_a_manifest_has_the_warnings_that_the_conversation_has(
    settings: Settings, recording: Path, tmp_path: Path
) -> None:
    storage = StorageConfig(
        upload_dir=settings.storage.upload_dir,
        s3_bucket_name="talks",
        s3_endpoint_url="http://127.0.0.1:1",
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",
    )
    async with api(settings.model_copy(update={"storage": storage})) as (client, _):
        answer = await post(client, recording)
    warnings = answer.json()["warnings"]
    [manifest] = tmp_path.glob("uploads/conv_*/**/*_metadata.json")
    assert warnings and warnings == json.loads(manifest.read_text())["warnings"]
