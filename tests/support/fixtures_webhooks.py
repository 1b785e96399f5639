"""A service that sends messages, with a database, a receiver and a finished job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import pytest

from backend.database.jobs import get_job
from backend.database.migrate import migrate
from backend.database.models import Delivery, Job
from backend.database.session import Database
from backend.domain.access.addresses import Allowance
from backend.domain.states.jobs import JobStatus
from backend.services.remote.client import OutboundClient
from backend.services.webhooks.service import WebhookService
from tests.support.web_servers import WebServer, reply, web_server

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


JOB = "job_1"


TROUBLE = {"kind": "EmptyAudio", "detail": "The recording has no samples. Record again."}


@dataclass
class Desk:
    """A webhook service over a database with one job, and a receiver."""

    database: Database
    service: WebhookService
    receiver: WebServer

    async def message(self, event: str = "job.completed", url: str | None = None) -> Delivery:
        async with self.database.transaction() as session:
            return self.service.create(session, JOB, url or self.receiver.url("/hook"), event)

    async def row(self) -> Delivery:
        (row,) = await self.service.list(JOB)
        return row


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """A migrated database with the job in it."""
    await migrate(url)
    database = Database(url)
    async with database.transaction() as session:
        session.add(
            Job(
                id=JOB,
                conversation_id="conv_1",
                status=JobStatus.FAILED,
                queue="asr",
                filename="a.wav",
                size_bytes=1,
                sha256="0" * 64,
                options={},
                error=TROUBLE,
                created_at=datetime.now(UTC),
            )
        )
    try:
        yield database
    finally:
        async with database.transaction() as session:
            await session.delete(await get_job(session, JOB))
        await database.close()


def service(database: Database, *secrets: str, timeout_s: float = 5, **options: Any) -> WebhookService:
    client = OutboundClient(Allowance(networks=(ip_network("127.0.0.1/32"),)))
    return WebhookService(database, client, secrets=secrets, timeout_s=timeout_s, **options)


@pytest.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    async with web_server(reply(204)) as receiver:
        yield Desk(database, service(database, SECRET), receiver)
