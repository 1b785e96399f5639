"""Wrong keys: the server slows their peer down and shuts no other caller out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from pydantic import SecretStr
from starlette.exceptions import HTTPException

from backend.api.middleware.wrong_keys import FREE_FAILURES, LONGEST_DELAY_S, PEERS_KEPT, WrongKeys
from backend.config import Settings
from backend.main import create_app

pytestmark = pytest.mark.anyio

RIGHT, WRONG = {"X-API-Key": "correct-horse-battery"}, {"X-API-Key": "wrong-horse-battery"}
PATH = "/nothing"


@asynccontextmanager
async def clients(settings: Settings, *hosts: str) -> AsyncIterator[list[httpx.AsyncClient]]:
    """One client at each address, of one application."""
    app = create_app(settings.model_copy(update={"api_keys": SecretStr("ada:correct-horse-battery")}))
    opened = [
        httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(host, 1)), base_url="http://aperta")
        for host in hosts
    ]
    yield opened
    for client in opened:
        await client.aclose()


async def guess(client: httpx.AsyncClient, times: int) -> list[int]:
    answers = await asyncio.gather(*[client.get(PATH, headers=WRONG) for _ in range(times)])
    return [answer.status_code for answer in answers]


async def test_many_wrong_keys_are_answered_with_429_and_a_time(settings: Settings) -> None:
    async with clients(settings, "192.0.2.1") as (client,):
        assert (await guess(client, FREE_FAILURES)) == [401] * FREE_FAILURES
        answer = await client.get(PATH, headers=WRONG)
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert 1 <= int(answer.headers["retry-after"]) <= 60


async def test_a_right_key_from_the_same_address_waits_once_and_is_let_in(settings: Settings) -> None:
    async with clients(settings, "192.0.2.1") as (client,):
        await guess(client, FREE_FAILURES + 50)
        began = time.monotonic()
        assert (await client.get(PATH, headers=RIGHT)).status_code == 404
        assert time.monotonic() - began < LONGEST_DELAY_S + 2
        began = time.monotonic()
        assert (await client.get(PATH, headers=RIGHT)).status_code == 404
        assert time.monotonic() - began < LONGEST_DELAY_S / 2


async def test_other_addresses_are_not_delayed(settings: Settings) -> None:
    async with clients(settings, "192.0.2.1", "192.0.2.2") as (attacker, other):
        await guess(attacker, FREE_FAILURES + 50)
        began = time.monotonic()
        assert (await other.get(PATH, headers=WRONG)).status_code == 401
        assert time.monotonic() - began < LONGEST_DELAY_S / 2


async def test_addresses_of_one_network_of_ipv6_count_together(settings: Settings) -> None:
    async with clients(settings, "2001:db8::1", "2001:db8::ffff:2") as (first, second):
        await guess(first, FREE_FAILURES)
        assert (await second.get(PATH, headers=WRONG)).status_code == 429


async def test_requests_without_a_key_are_not_counted(settings: Settings) -> None:
    async with clients(settings, "192.0.2.1") as (client,):
        assert {(await client.get(PATH)).status_code for _ in range(3 * FREE_FAILURES)} == {401}
        assert (await client.get(PATH, headers=WRONG)).status_code == 401


def test_the_memory_for_peers_is_bounded() -> None:
    wrong = WrongKeys()
    for number in range(PEERS_KEPT + 100):
        host = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        scope = {"type": "http", "client": (host, 1), "headers": [(b"x-api-key", b"wrong")]}
        wrong.refusal(scope, HTTPException(401))
    assert len(wrong._failures) == PEERS_KEPT
