"""A request that comes again is the same job: by its key, or by the bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.conftest import send
from tests.support.media import tone, write

pytestmark = pytest.mark.anyio


Files = Callable[[], list[str]]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "meeting.wav", tone(2.0))


async def test_the_same_idempotency_key_gives_the_same_conversation(client: httpx.AsyncClient, recording: Path) -> None:
    headers = {"Idempotency-Key": "monday"}
    answers = await asyncio.gather(*(send(client, recording, **headers) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["conversation_id"] for answer in answers}) == 1
    assert (await client.get("/conversations")).json()["total"] == 1


async def test_an_idempotency_key_of_another_recording_is_refused(
    client: httpx.AsyncClient, recording: Path, tmp_path: Path
) -> None:
    headers = {"Idempotency-Key": "monday"}
    await send(client, recording, **headers)
    other = write(tmp_path / "other.wav", tone(1.0))
    answer = await send(client, other, **headers)
    assert answer.status_code == 422 and "Idempotency-Key" in answer.json()["detail"]


async def test_the_same_bytes_are_processed_once_if_that_is_wanted(client: httpx.AsyncClient, recording: Path) -> None:
    first = (await send(client, recording)).json()["conversation_id"]
    assert (await send(client, recording, "?dedupe=true")).json()["conversation_id"] == first
    assert (await send(client, recording)).json()["conversation_id"] != first
    await client.delete(f"/conversations/{first}")
    assert (await send(client, recording, "?dedupe=true")).json()["conversation_id"] != first
