"""The API with other servers: a recording fetched from one, and another told how its job ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from standardwebhooks import Webhook

from backend.config import Settings
from backend.wiring.services import Services
from tests.conftest import api
from tests.support.media import tone, write
from tests.support.web_servers import WebServer, redirect, reply, web_server

pytestmark = pytest.mark.anyio

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@dataclass
class Town:
    """A running Aperta, a server with a recording, and a receiver of webhooks."""

    client: httpx.AsyncClient
    services: Services
    archive: WebServer
    receiver: WebServer

    async def process(self, **fields: str) -> httpx.Response:
        parts = {name: (None, value) for name, value in fields.items()}
        return await self.client.post("/audio/process", files=parts)

    async def delivered(self, job_id: str) -> dict:
        """The one entry in a job's log of messages, once it was delivered."""
        for _ in range(500):
            (entry,) = (await self.client.get(f"/jobs/{job_id}/deliveries")).json()["deliveries"] or [{}]
            if entry.get("status") == "delivered":
                return entry
            await asyncio.sleep(0.02)
        raise AssertionError("the message was not delivered")


@pytest.fixture
def recording(tmp_path: Path) -> bytes:
    return write(tmp_path / "a.wav", tone(2.0)).read_bytes()


@pytest.fixture
async def town(settings: Settings, recording: bytes) -> AsyncIterator[Town]:
    values = {"ingest_from_url": True, "webhook_secret": SECRET, "outbound_allow_private": "127.0.0.1"}
    configured = Settings(**{**settings.model_dump(exclude_unset=True), **values})
    async with (
        web_server(reply(200, recording, content_type="audio/wav")) as archive,
        web_server(reply(204)) as receiver,
        api(configured) as (client, services),
    ):
        yield Town(client, services, archive, receiver)


async def test_a_recording_is_fetched_processed_and_announced(town: Town, recording: bytes) -> None:
    answer = await town.process(url=town.archive.url("/board.wav"), callback_url=town.receiver.url("/hook"))

    assert answer.status_code == 200, answer.text
    conversation = answer.json()["conversation_id"]
    stored = await town.client.get(f"/conversations/{conversation}/audio")
    assert stored.content == recording
    assert "board.wav" in stored.headers["content-disposition"]
    (job,) = (await town.client.get("/jobs")).json()["jobs"]
    entry = await town.delivered(job["id"])
    assert (entry["event"], entry["attempts"], entry["last_status"]) == ("job.completed", 1, 204)
    (received,) = town.receiver.requests
    message = Webhook(SECRET).verify(received.body, dict(received.headers))
    assert message["data"] == {"job_id": job["id"], "conversation_id": conversation, "status": "completed"}


async def test_a_web_page_in_place_of_a_recording_is_refused_and_nobody_is_told(town: Town, stored_files) -> None:
    town.archive.answer = reply(200, b"<html>log in first</html>" * 100)

    answer = await town.process(url=town.archive.url("/a.wav"), callback_url=town.receiver.url())

    assert (answer.status_code, stored_files()) == (415, [])
    assert town.receiver.requests == []


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("http://169.254.169.254/latest/meta-data/", 422),
        ("http://localhost:1/a.wav", 422),
        ("file:///etc/passwd", 422),
    ],
)
async def test_a_forbidden_url_is_refused_and_nothing_is_kept(town: Town, stored_files, url: str, status: int) -> None:
    answer = await town.process(url=url)

    assert (answer.status_code, stored_files()) == (status, [])
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("reason", "status"), [(404, 422), (403, 422), (503, 502), (500, 502)])
async def test_a_server_without_the_recording_is_told_apart_from_one_in_trouble(
    town: Town, stored_files, reason: int, status: int
) -> None:
    town.archive.answer = reply(reason, b"secret")

    answer = await town.process(url=town.archive.url())

    assert (answer.status_code, stored_files()) == (status, [])
    assert "secret" not in answer.text


async def test_a_redirect_into_the_own_network_is_refused(town: Town) -> None:
    async with web_server(reply(200, b"secret"), host="127.0.0.2") as inside:
        town.archive.answer = redirect(inside.url())
        answer = await town.process(url=town.archive.url())

    assert (answer.status_code, inside.requests) == (422, [])


async def test_a_recording_that_is_too_large_is_refused(town: Town, stored_files) -> None:
    town.archive.answer = reply(200, b"x" * 5_000_001)

    answer = await town.process(url=town.archive.url())

    assert (answer.status_code, stored_files()) == (413, [])


async def test_a_forbidden_callback_is_refused_before_anything_is_processed(
    town: Town, stored_files, recording: bytes
) -> None:
    answer = await town.client.post(
        "/audio/process", files={"file": ("a.wav", recording)}, data={"callback_url": "http://10.0.0.1/hook"}
    )

    assert (answer.status_code, stored_files()) == (422, [])


async def test_urls_and_callbacks_are_off_by_default(client: httpx.AsyncClient, recording: bytes) -> None:
    fetched = await client.post("/audio/process", files={"url": (None, "https://example.org/a.wav")})
    called = await client.post(
        "/audio/process", files={"file": ("a.wav", recording)}, data={"callback_url": "https://example.org/"}
    )

    assert (fetched.status_code, called.status_code) == (422, 422)
    assert "INGEST_FROM_URL" in fetched.json()["detail"]
    assert "WEBHOOK_SECRET" in called.json()["detail"]
