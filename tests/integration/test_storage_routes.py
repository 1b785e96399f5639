"""/storage/*: what the command line does, over HTTP and in parts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from backend.wiring.services import Services
from tests.support.recordings import keep_conversation

pytestmark = pytest.mark.anyio


async def test_usage_counts_by_store_and_kind(client: httpx.AsyncClient, services: Services) -> None:
    kept = await keep_conversation(services.storage, services.database)
    usage = (await client.get("/storage/usage")).json()
    assert {(item["store"], item["kind"]) for item in usage["holdings"]} == {
        ("local", "audio"),
        ("local", "metadata"),
        ("local", "transcript"),
    }
    assert {"objects": 1, "bytes": kept.audio.size_bytes, "store": "local", "kind": "audio"} in usage["holdings"]
    assert (usage["lost"], usage["backlog"]["objects"], usage["quarantine"]["local"]["objects"]) == (0, 0, 0)


async def test_verify_in_parts_sees_everything(client: httpx.AsyncClient, services: Services) -> None:
    kept = await keep_conversation(services.storage, services.database)
    Path(kept.audio.locator).unlink()
    cursor, counts, parts = None, {}, 0
    while parts == 0 or cursor is not None:
        asked = {"max_objects": 1, "grace_s": 0, "cursor": cursor}
        reply = await client.post("/storage/verify", json=asked)
        assert reply.status_code == 200, reply.text
        counts |= reply.json()["counts"]
        cursor, parts = reply.json()["cursor"], parts + 1
    assert counts == {"missing": 1} and parts > 1


async def test_repair_is_dry_unless_told(client: httpx.AsyncClient, services: Services) -> None:
    stray = await services.storage.save_audio_file(b"x", "conv_nobody", "stray.wav")
    dry = (await client.post("/storage/repair", json={"grace_s": 0})).json()
    assert (dry["applied"], dry["counts"], Path(stray.locator).exists()) == (False, {"quarantine": 1}, True)
    real = (await client.post("/storage/repair", json={"grace_s": 0, "apply": True})).json()
    assert (real["applied"], real["actions"][0]["locator"]) == (True, stray.locator)
    assert Path(real["actions"][0]["target"]).read_bytes() == b"x"


async def test_a_drain_says_what_it_moved(client: httpx.AsyncClient) -> None:
    reply = await client.post("/storage/drain", json={"retry_parked": True})
    assert (reply.status_code, reply.json()["moved"], reply.json()["backlog"]["objects"]) == (200, 0, 0)


@pytest.mark.parametrize(
    "asked", [{"cursor": "nonsense"}, {"max_objects": 0}, {"max_seconds": 1e9}, {"grace_s": -1}, {"aply": True}]
)
async def test_a_question_that_makes_no_sense_is_422(client: httpx.AsyncClient, asked: dict[str, object]) -> None:
    reply = await client.post("/storage/repair", json=asked)
    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/problem+json"


async def test_two_looks_at_once_are_a_conflict(client: httpx.AsyncClient) -> None:
    replies = await asyncio.gather(*(client.post("/storage/verify", json={}) for _ in range(2)))
    assert sorted(reply.status_code for reply in replies) == [200, 409]
    assert (await client.post("/storage/verify", json={})).status_code == 200
