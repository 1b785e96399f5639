"""Recordings sent to POST /audio/process, and its refusals."""

from __future__ import annotations

from pathlib import Path

import httpx
from sqlalchemy import func, select

from backend.database.models import Conversation
from backend.wiring.services import Services


async def post(client: httpx.AsyncClient, path: Path, name: str | None = None, **fields: str) -> httpx.Response:
    files = {"file": (name or path.name, path.read_bytes(), "audio/wav")}
    return await client.post("/audio/process", files=files, data=fields)


async def row_count(services: Services) -> int:
    async with services.database.transaction() as session:
        return (await session.execute(select(func.count()).select_from(Conversation))).scalar_one()


def assert_problem(answer: httpx.Response, status: int, says: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status and problem["title"] and problem["instance"] == "/audio/process"
    assert says.lower() in problem["detail"].lower()
