"""Jobs over HTTP: asynchronous answers, progress, events, cancelling, trying again, and doing nothing twice."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from dbos import DBOS
from sqlalchemy.exc import OperationalError

from backend.config import Settings
from backend.domain.transcript import Diarization, Transcription
from backend.engines.audio.samples import Audio
from backend.engines.base import Progress, TranscribeOptions
from backend.engines.lazy import Lazy
from backend.engines.scripted import ScriptedTranscriber
from backend.services.jobs.schedule.table import WATCH_EVERY_S, Kind
from backend.services.speech.pipeline import SpeechPipeline
from backend.wiring.services import Services
from tests.conftest import HEARD, api, scripted_speech, send
from tests.support.media import tone, write

pytestmark = pytest.mark.anyio

Files = Callable[[], list[str]]


class SteppedTranscriber(ScriptedTranscriber):
    """Tells its progress every 20 ms until it is let go, as an engine tells it for every batch."""

    def __init__(self) -> None:
        super().__init__(HEARD)
        self.go = threading.Event()
        self.calls = 0

    def transcribe(
        self, audio: Audio, options: TranscribeOptions, turns: Diarization | None, progress: Progress
    ) -> Transcription:
        self.calls += 1
        fraction = 0.1
        while not self.go.wait(0.02):
            fraction = min(0.9, fraction + 0.001)
            progress(fraction)
        return super().transcribe(audio, options, turns, progress)


@pytest.fixture
def engine() -> SteppedTranscriber:
    return SteppedTranscriber()


@pytest.fixture
async def stepped(settings: Settings, engine: SteppedTranscriber) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
    """An API whose transcriber waits to be let go."""
    speech = SpeechPipeline(Lazy("stepped", lambda: engine), None, max_audio_s=60)
    async with api(settings, speech) as pair:
        yield pair
        engine.go.set()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "meeting.wav", tone(2.0))


async def start(client: httpx.AsyncClient, path: Path, **headers: str) -> str:
    answer = await send(client, path, "?async=true", **headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def reach(client: httpx.AsyncClient, job_id: str, status: str, seconds: float = 20) -> dict[str, object]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        job: dict[str, object] = (await client.get(f"/jobs/{job_id}")).json()
        if job["status"] == status:
            return job
        await asyncio.sleep(0.05)
    raise AssertionError(job)


async def test_an_asynchronous_request_is_accepted_with_the_jobs_address(
    client: httpx.AsyncClient, recording: Path
) -> None:
    answer = await send(client, recording, Prefer="wait=5, respond-async")
    job = answer.json()
    assert answer.status_code == 202 and answer.headers["location"] == f"/jobs/{job['id']}"
    assert answer.headers["preference-applied"] == "respond-async"
    await reach(client, job["id"], "completed")
    conversation = (await client.get(f"/conversations/{job['conversation_id']}")).json()
    assert conversation["status"] == "completed" and conversation["speaker_count"] == 2


async def test_a_running_job_says_its_stage_and_how_far_it_is(
    stepped: tuple[httpx.AsyncClient, Services], engine: SteppedTranscriber, recording: Path
) -> None:
    client, _ = stepped
    job_id = await start(client, recording)
    await reach(client, job_id, "running")
    end = time.monotonic() + 10
    while (job := (await client.get(f"/jobs/{job_id}")).json())["stage"] != "transcribe":
        assert time.monotonic() < end, job
        await asyncio.sleep(0.05)
    assert 0 < job["progress"] < 1 and job["attempts"] == 1 and job["error"] is None
    engine.go.set()
    done = await reach(client, job_id, "completed")
    assert done["progress"] == 1 and done["finished_at"] is not None


async def test_waiting_jobs_know_their_place_and_are_listed_by_state(
    stepped: tuple[httpx.AsyncClient, Services], engine: SteppedTranscriber, recording: Path
) -> None:
    client, _ = stepped
    first = await start(client, recording)
    await reach(client, first, "running")
    waiting = [await start(client, recording) for _ in range(2)]
    assert [(await client.get(f"/jobs/{job_id}")).json()["position"] for job_id in waiting] == [1, 2]
    page = (await client.get("/jobs?status=queued")).json()
    assert [job["id"] for job in page["jobs"]] == waiting[::-1] and page["total"] == 2
    engine.go.set()
    for job_id in (first, *waiting):
        await reach(client, job_id, "completed")
    metrics = (await client.get("/metrics")).text
    assert 'aperta_recordings_total{outcome="completed"} 3.0' in metrics


async def test_a_client_that_hangs_up_does_not_stop_its_job(
    stepped: tuple[httpx.AsyncClient, Services], engine: SteppedTranscriber, recording: Path
) -> None:
    client, _ = stepped
    request = asyncio.create_task(send(client, recording))
    while not (listed := (await client.get("/jobs?status=running")).json()["jobs"]):
        await asyncio.sleep(0.05)
    request.cancel()
    engine.go.set()
    job = await reach(client, listed[0]["id"], "completed")
    assert (await client.get(f"/conversations/{job['conversation_id']}")).json()["status"] == "completed"


async def test_a_cancelled_job_stops_within_two_seconds_and_leaves_nothing(
    stepped: tuple[httpx.AsyncClient, Services], engine: SteppedTranscriber, recording: Path, stored_files: Files
) -> None:
    client, services = stepped
    job_id = await start(client, recording)
    job = await reach(client, job_id, "running")
    while not engine.calls:
        await asyncio.sleep(0.01)
    answer = await client.delete(f"/jobs/{job_id}")
    assert answer.status_code == 200 and answer.json()["status"] == "cancelled"
    began = time.monotonic()
    while services.runner.running:
        assert time.monotonic() - began < 2
        await asyncio.sleep(0.02)
    assert stored_files() == []
    assert (await client.get(f"/conversations/{job['conversation_id']}")).status_code == 404
    assert (await client.delete(f"/jobs/{job_id}")).json()["status"] == "cancelled"


async def test_a_waiting_job_that_is_cancelled_never_starts(
    stepped: tuple[httpx.AsyncClient, Services], engine: SteppedTranscriber, recording: Path
) -> None:
    client, _ = stepped
    first, second = await start(client, recording), await start(client, recording)
    await client.delete(f"/jobs/{second}")
    engine.go.set()
    await reach(client, first, "completed")
    await asyncio.sleep(0.5)
    assert engine.calls == 1 and (await client.get(f"/jobs/{second}")).json()["status"] == "cancelled"


async def test_whoever_waits_for_a_cancelled_job_is_told(
    stepped: tuple[httpx.AsyncClient, Services], recording: Path
) -> None:
    client, _ = stepped
    request = asyncio.create_task(send(client, recording))
    while not (listed := (await client.get("/jobs?status=running")).json()["jobs"]):
        await asyncio.sleep(0.05)
    await client.delete(f"/jobs/{listed[0]['id']}")
    answer = await request
    assert answer.status_code == 409 and "cancelled" in answer.json()["detail"]


async def test_a_completed_job_cannot_be_cancelled(client: httpx.AsyncClient, recording: Path) -> None:
    job_id = await start(client, recording)
    await reach(client, job_id, "completed")
    answer = await client.delete(f"/jobs/{job_id}")
    assert answer.status_code == 409 and "completed" in answer.json()["detail"]


async def test_a_failed_job_names_its_problem_and_can_be_tried_again(settings: Settings, recording: Path) -> None:
    class Recovering(ScriptedTranscriber):
        broken = True

        def transcribe(self, *arguments: object) -> Transcription:
            if self.broken:
                raise RuntimeError("out of memory")
            return super().transcribe(*arguments)  # type: ignore[arg-type]

    engine = Recovering(HEARD)
    async with api(settings, SpeechPipeline(Lazy("scripted", lambda: engine), None, max_audio_s=60)) as (client, _):
        job_id = await start(client, recording)
        failed = await reach(client, job_id, "failed")
        problem = failed["error"]
        assert isinstance(problem, dict) and problem["status"] == 500 and "out of memory" in problem["detail"]
        engine.broken = False
        assert (await client.post(f"/jobs/{job_id}/retry")).status_code == 202
        done = await reach(client, job_id, "completed")
        detail = (await client.get(f"/conversations/{done['conversation_id']}")).json()
        assert detail["status"] == "completed" and detail["error"] is None
        assert sorted(item["kind"] for item in detail["objects"]) == ["audio", "metadata", "transcript"]
        assert Path(detail["recording_url"]).read_bytes() == recording.read_bytes()


async def test_a_job_that_did_not_fail_cannot_be_tried_again(client: httpx.AsyncClient, recording: Path) -> None:
    job_id = await start(client, recording)
    await reach(client, job_id, "completed")
    assert (await client.post(f"/jobs/{job_id}/retry")).status_code == 409


async def test_a_refused_recording_fails_for_good_and_leaves_only_its_job(
    settings: Settings, tmp_path: Path, stored_files: Files
) -> None:
    path = write(tmp_path / "long.wav", tone(3.0))
    async with api(settings, scripted_speech(max_s=1)) as (client, _):
        job_id = await start(client, path)
        failed = await reach(client, job_id, "failed")
        problem = failed["error"]
        assert isinstance(problem, dict) and problem["status"] == 413
        assert (await client.post(f"/jobs/{job_id}/retry")).status_code == 409
        assert (await client.get("/conversations")).json()["total"] == 0 and stored_files() == []


async def test_an_unknown_job_is_not_found(client: httpx.AsyncClient) -> None:
    for method, path in (("GET", ""), ("GET", "/events"), ("DELETE", ""), ("POST", "/retry")):
        answer = await client.request(method, f"/jobs/job_none{path}")
        assert answer.status_code == 404 and answer.headers["content-type"] == "application/problem+json", path


async def events_of(client: httpx.AsyncClient, job_id: str, **headers: str) -> list[tuple[str, str, dict[str, object]]]:
    """(event, id, data) until the stream ends."""
    answer = await client.get(f"/jobs/{job_id}/events", headers=headers, timeout=30)
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return found


async def test_events_tell_the_states_of_a_job_up_to_its_end(
    stepped: tuple[httpx.AsyncClient, Services], engine: SteppedTranscriber, recording: Path
) -> None:
    client, _ = stepped
    job_id = await start(client, recording)
    following = asyncio.create_task(events_of(client, job_id))
    while not (await client.get(f"/jobs/{job_id}")).json()["progress"]:
        await asyncio.sleep(0.05)
    await asyncio.sleep(3 * WATCH_EVERY_S)
    engine.go.set()
    events = await following
    names = [name for name, _, _ in events]
    assert names[-1] == "completed" and "progress" in names
    assert events[-1][2]["progress"] == 1
    assert len({event_id for _, event_id, _ in events}) == len(events)


async def test_events_go_on_after_the_last_one_that_was_seen(client: httpx.AsyncClient, recording: Path) -> None:
    job_id = await start(client, recording)
    await reach(client, job_id, "completed")
    [(name, event_id, _)] = await events_of(client, job_id)
    assert name == "completed"
    assert await events_of(client, job_id, **{"Last-Event-ID": event_id}) == []


async def test_a_full_queue_is_refused_before_the_body_is_read(
    settings: Settings, engine: SteppedTranscriber, recording: Path
) -> None:
    speech = SpeechPipeline(Lazy("stepped", lambda: engine), None, max_audio_s=60)
    async with api(settings.model_copy(update={"max_queued_jobs": 1}), speech) as (client, _):
        await start(client, recording)
        answer = await send(client, recording)
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) > 0
        engine.go.set()


async def test_owners_take_turns_in_the_queue(settings: Settings, engine: SteppedTranscriber, recording: Path) -> None:
    from backend.services.jobs.intake import Submission
    from backend.services.processing.service import ProcessOptions
    from backend.services.uploads.sources import StreamedRecording

    speech = SpeechPipeline(Lazy("stepped", lambda: engine), None, max_audio_s=60)
    async with api(settings, speech) as (_, services):

        async def submit(owner: str) -> int:
            async def chunks() -> AsyncIterator[bytes]:
                yield recording.read_bytes()

            source = StreamedRecording(chunks(), "a.wav")
            return (await services.intake.accept(source, ProcessOptions(), Submission(owner=owner))).priority

        many = [await submit("ann") for _ in range(5)]
        assert many == sorted(many) and len(set(many)) == 5
        assert many[0] < await submit("ben") <= many[1]
        engine.go.set()


@asynccontextmanager
async def restarted(settings: Settings, speech: SpeechPipeline) -> AsyncIterator[tuple[httpx.AsyncClient, Services]]:
    async with api(settings, speech) as (client, services):
        await services.runner.start()
        yield client, services


async def test_what_a_stopped_server_was_working_on_goes_on_at_its_next_start(
    settings: Settings, recording: Path
) -> None:
    before, after = SteppedTranscriber(), SteppedTranscriber()
    async with api(settings, SpeechPipeline(Lazy("one", lambda: before), None, max_audio_s=60)) as (client, _):
        job_id = await start(client, recording)
        while not before.calls:
            await asyncio.sleep(0.01)
    after.go.set()
    async with restarted(settings, SpeechPipeline(Lazy("two", lambda: after), None, max_audio_s=60)) as (client, _):
        job = await reach(client, job_id, "completed")
        assert job["attempts"] == 2 and after.calls == 1


async def test_checkpoints_of_ended_jobs_are_forgotten(
    client: httpx.AsyncClient, services: Services, recording: Path
) -> None:
    job_id = await start(client, recording)
    await reach(client, job_id, "completed")
    await asyncio.sleep(0.3)
    await services.scheduler.run(Kind.ENDED_JOBS)
    assert await services.durable.states([job_id]) == {}


async def test_a_job_that_is_looked_at_right_after_its_commit_still_clears_up(
    client: httpx.AsyncClient, services: Services, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = services.processing._commit

    async def commit_and_look(*what: Any) -> None:
        await commit(*what)
        await services.scheduler.run(Kind.RUNNING_JOBS)

    monkeypatch.setattr(services.processing, "_commit", commit_and_look)
    assert (await send(client, recording)).status_code == 200
    while services.runner.running:
        await asyncio.sleep(0.01)
    assert await services.storage.parts.accepted.names(older_than_s=0) == []
    assert 'aperta_recordings_total{outcome="completed"} 1.0' in (await client.get("/metrics")).text


async def test_the_delete_of_a_conversation_stops_its_job_and_leaves_nothing_of_the_recording(
    stepped: tuple[httpx.AsyncClient, Services], recording: Path, stored_files: Files
) -> None:
    client, services = stepped
    job = (await send(client, recording, "?async=true", **{"Idempotency-Key": "monday"})).json()
    while not (await client.get(f"/jobs/{job['id']}")).json()["progress"]:
        await asyncio.sleep(0.05)
    assert (await client.delete(f"/conversations/{job['conversation_id']}")).status_code == 204
    while services.runner.running:
        await asyncio.sleep(0.05)
    left = (await client.get(f"/jobs/{job['id']}")).json()
    assert (left["status"], left["filename"], left["error"]) == ("cancelled", "", None)
    assert stored_files() == []
    assert (await send(client, recording, "?async=true", **{"Idempotency-Key": "monday"})).status_code == 202


async def test_a_job_that_the_durable_engine_cannot_write_down_is_accepted_and_queued_later(
    client: httpx.AsyncClient, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_arguments: object) -> None:
        raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

    with monkeypatch.context() as broken:
        broken.setattr(DBOS, "enqueue_workflow_with_options_async", full)
        job_id = await start(client, recording)
    assert (await client.get(f"/jobs/{job_id}")).json()["status"] == "queued"
    await reach(client, job_id, "completed")
