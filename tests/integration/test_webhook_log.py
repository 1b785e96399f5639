"""The log of messages over HTTP: seen, and sent once more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from backend.api.problems import add_problem_handlers
from backend.api.routes.webhooks import router
from backend.database.session import Database
from backend.services.webhooks.service import WebhookService
from tests.support.fixtures_webhooks import JOB, SECRET, Desk, opened, service
from tests.support.web_servers import reply

pytestmark = pytest.mark.anyio


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(f"sqlite+aiosqlite:///{tmp_path}/rows.db") as database:
        yield database


@dataclass
class Window:
    """What the routes need of the opened services."""

    webhooks: WebhookService


@pytest.fixture
async def client(desk: Desk) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(desk.service) as client:
        yield client


@asynccontextmanager
async def client_of(webhooks: WebhookService) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    add_problem_handlers(app)
    app.include_router(router)
    app.state.services = Window(webhooks)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client


async def test_the_log_shows_every_message_of_a_job(desk: Desk, client: httpx.AsyncClient) -> None:
    desk.receiver.answer = reply(500)
    message = await desk.message("job.failed")
    await desk.service.attempt(message.id)

    answer = await client.get(f"/jobs/{JOB}/deliveries")

    assert answer.status_code == 200
    assert answer.json() == {
        "deliveries": [
            {
                "id": message.id,
                "event": "job.failed",
                "url": desk.receiver.url("/hook"),
                "status": "pending",
                "attempts": 1,
                "last_status": 500,
                "last_error": "The receiver said 500 Internal Server Error.",
                "created_at": message.created_at.isoformat().replace("+00:00", "Z"),
                "delivered_at": None,
            }
        ]
    }


async def test_a_message_can_be_sent_once_more_under_its_id(desk: Desk, client: httpx.AsyncClient) -> None:
    message = await desk.message()
    await desk.service.attempt(message.id)

    answer = await client.post(f"/jobs/{JOB}/deliveries/{message.id}/redeliver")

    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["attempts"]) == ("delivered", 2)
    assert {request.headers["webhook-id"] for request in desk.receiver.requests} == {message.id}
    assert len(desk.receiver.requests) == 2


async def test_redelivery_is_left_to_the_schedule(desk: Desk) -> None:
    scheduled: list[str] = []

    async def schedule(delivery_id: str) -> None:
        scheduled.append(delivery_id)

    desk.receiver.answer = reply(410)
    message = await desk.message()
    await desk.service.attempt(message.id)

    async with client_of(service(desk.database, SECRET, schedule=schedule)) as client:
        answer = await client.post(f"/jobs/{JOB}/deliveries/{message.id}/redeliver")

    assert (answer.status_code, answer.json()["status"], scheduled) == (202, "pending", [message.id])
    assert len(desk.receiver.requests) == 1


async def test_messages_of_unknown_jobs_are_not_found(desk: Desk, client: httpx.AsyncClient) -> None:
    message = await desk.message()

    assert (await client.get("/jobs/job_2/deliveries")).status_code == 404
    assert (await client.get("/jobs/%00/deliveries")).status_code == 404
    assert (await client.post(f"/jobs/job_2/deliveries/{message.id}/redeliver")).status_code == 404
    assert (await client.post(f"/jobs/{JOB}/deliveries/msg_none/redeliver")).status_code == 404
    assert desk.receiver.requests == []
