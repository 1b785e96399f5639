"""The way in for a recording: what is checked before it is read, and what becomes of it, over the real services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.config import Settings
from backend.database.jobs import get_job
from backend.database.models import Job
from backend.domain.states.jobs import JobStatus
from backend.errors import InvalidInput, NotFound, TooLarge, TooManyJobs
from backend.services.jobs.intake import Order, Submission
from backend.services.processing.service import ProcessOptions
from backend.services.storage import SpooledFile
from backend.services.uploads.sources import ReceivedRecording, StreamedRecording, UploadedRecording
from backend.wiring.services import Services, open_services
from tests.conftest import scripted_speech
from tests.support.media import tone, write

pytestmark = pytest.mark.anyio

OPTIONS = ProcessOptions()


@pytest.fixture
def sound(tmp_path: Path) -> bytes:
    return write(tmp_path / "tone.wav", tone(1.0)).read_bytes()


class Chunks:
    """A stream that remembers how much of it was read."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks
        self.read_bytes = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.read_bytes += len(chunk)
            yield chunk


def streamed(chunks: Chunks, size_bytes: int | None = None) -> StreamedRecording:
    return StreamedRecording(aiter(chunks), "tone.wav", "audio/wav", size_bytes)


async def row_of(services: Services, job_id: str) -> Job:
    async with services.database.transaction() as session:
        return await get_job(session, job_id)


async def test_a_stream_becomes_a_job_that_completes(services: Services, sound: bytes) -> None:
    job = await services.intake.accept(streamed(Chunks(sound[:100], sound[100:])), OPTIONS)
    assert (await services.jobs.wait(job.id)).status == JobStatus.COMPLETED
    row = await row_of(services, job.id)
    assert (row.filename, row.content_type, row.size_bytes) == ("tone.wav", "audio/wav", len(sound))


async def test_a_full_queue_is_refused_before_the_stream_is_read(settings: Settings, sound: bytes) -> None:
    chunks = Chunks(sound)
    async with open_services(settings.model_copy(update={"max_queued_jobs": 0}), scripted_speech()) as services:
        with pytest.raises(TooManyJobs):
            await services.intake.accept(streamed(chunks), OPTIONS)
        with pytest.raises(TooManyJobs):
            await services.intake.accept_form(aiter(chunks), lambda _: pytest.fail("the order was read"))
    assert chunks.read_bytes == 0


async def test_what_runs_here_passes_the_limits_of_the_queue(settings: Settings, sound: bytes) -> None:
    async with open_services(settings.model_copy(update={"max_queued_jobs": 0}), scripted_speech()) as services:
        job = await services.intake.accept(streamed(Chunks(sound)), OPTIONS, Submission(here=True))
        assert (await services.jobs.wait(job.id)).status == JobStatus.COMPLETED


async def test_the_configured_callback_is_for_jobs_of_the_queue_only(settings: Settings, sound: bytes) -> None:
    configured = settings.model_copy(update={"webhook_url": "https://example.org/all"})
    async with open_services(configured, scripted_speech(), listen=()) as services:
        queued = await services.intake.accept(streamed(Chunks(sound)), OPTIONS)
        here = await services.intake.accept(streamed(Chunks(sound)), OPTIONS, Submission(here=True))
        assert (await row_of(services, queued.id)).callback_url == "https://example.org/all"
        assert (await row_of(services, here.id)).callback_url is None
        await services.jobs.wait(here.id)


async def test_a_callback_that_cannot_be_used_is_refused_before_the_stream_is_read(
    services: Services, sound: bytes
) -> None:
    chunks = Chunks(sound)
    with pytest.raises(InvalidInput, match="WEBHOOK_SECRET"):
        await services.intake.accept(streamed(chunks), OPTIONS, Submission(callback_url="https://example.org/hook"))
    assert chunks.read_bytes == 0


async def test_a_stream_may_not_exceed_the_largest_upload(settings: Settings, sound: bytes) -> None:
    async with open_services(settings.model_copy(update={"max_upload_bytes": 1000}), scripted_speech()) as services:
        with pytest.raises(TooLarge):
            await services.intake.accept(streamed(Chunks(sound)), OPTIONS)


async def test_the_order_of_a_form_is_read_once_its_file_is_complete(services: Services, sound: bytes) -> None:
    chunks = Chunks(sound[:100], sound[100:])

    def read_order(file: SpooledFile) -> Order:
        assert chunks.read_bytes == file.size_bytes == len(sound)
        return Order(ReceivedRecording(file, "form.wav"), OPTIONS, Submission(owner="ada"))

    job = await services.intake.accept_form(aiter(chunks), read_order, owner="ada", size_bytes=len(sound))
    row = await row_of(services, job.id)
    assert (row.filename, row.owner) == ("form.wav", "ada")
    await services.jobs.wait(job.id)


async def test_an_upload_of_another_owner_is_not_found(services: Services) -> None:
    with pytest.raises(NotFound):
        await services.intake.accept(UploadedRecording("upload_of_another"), OPTIONS, Submission(owner="ada"))
