"""A request's callback_url, from the form to the receiver."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from standardwebhooks import Webhook

from backend.config import Settings
from backend.services.jobs.maintenance import announcements
from tests.conftest import api, scripted_speech
from tests.support.media import tone, write
from tests.support.web_servers import WebServer, reply, web_server

pytestmark = pytest.mark.anyio

SECRET = "whsec_" + "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"


@pytest.fixture
async def receiver() -> AsyncIterator[WebServer]:
    async with web_server(reply(204)) as server:
        yield server


@pytest.fixture
def calling(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_secret": SecretStr(SECRET), "outbound_allow_private": "127.0.0.1"})


async def send(client: httpx.AsyncClient, path: Path, callback_url: str) -> httpx.Response:
    files = {"file": (path.name, path.read_bytes())}
    return await client.post("/audio/process?async=true", files=files, data={"callback_url": callback_url})


async def called(receiver: WebServer, times: int) -> None:
    async with asyncio.timeout(20):
        while len(receiver.requests) < times:
            await asyncio.sleep(0.05)


async def test_the_receiver_is_told_of_a_completed_job_and_the_log_shows_it(
    calling: Settings, receiver: WebServer, tmp_path: Path
) -> None:
    async with api(calling) as (client, _):
        job = (await send(client, write(tmp_path / "a.wav", tone(1.0)), receiver.url("/hook"))).json()
        await called(receiver, 1)
        [request] = receiver.requests
        message = Webhook(SECRET).verify(request.body, dict(request.headers))
        assert json.loads(request.body) == message
        assert message["type"] == "job.completed"
        assert message["data"]["conversation_id"] == job["conversation_id"]
        async with asyncio.timeout(10):
            while (log := (await client.get(f"/jobs/{job['id']}/deliveries")).json()["deliveries"])[0][
                "status"
            ] == "pending":
                await asyncio.sleep(0.05)
        assert [(item["id"], item["status"]) for item in log] == [(request.headers["webhook-id"], "delivered")]


async def test_the_receiver_is_told_of_a_failed_job(calling: Settings, receiver: WebServer, tmp_path: Path) -> None:
    async with api(calling, scripted_speech(RuntimeError("out of memory"))) as (client, _):
        await send(client, write(tmp_path / "a.wav", tone(1.0)), receiver.url("/hook"))
        await called(receiver, 1)
        data = json.loads(receiver.requests[0].body)
        assert data["type"] == "job.failed" and "out of memory" in str(data["data"]["error"])


async def test_a_receiver_that_fails_is_called_again_with_the_same_id(
    calling: Settings, receiver: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcements, "RETRY_AFTER_S", (0.3, 0.3))
    receiver.answer = reply(500)
    async with api(calling) as (client, _):
        await send(client, write(tmp_path / "a.wav", tone(1.0)), receiver.url("/hook"))
        await called(receiver, 1)
        receiver.answer = reply(204)
        await called(receiver, 2)
    first, second = receiver.requests[:2]
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


async def test_a_callback_into_the_private_network_is_refused_before_the_job(calling: Settings, tmp_path: Path) -> None:
    async with api(calling) as (client, _):
        answer = await send(client, write(tmp_path / "a.wav", tone(1.0)), "http://169.254.169.254/latest")
        assert answer.status_code == 422
        assert (await client.get("/jobs")).json()["total"] == 0


async def test_without_a_secret_callbacks_are_refused(settings: Settings, receiver: WebServer, tmp_path: Path) -> None:
    async with api(settings) as (client, _):
        answer = await send(client, write(tmp_path / "a.wav", tone(1.0)), receiver.url("/hook"))
        assert answer.status_code == 422 and "WEBHOOK_SECRET" in answer.json()["detail"]
