"""Messages to webhooks: signed so that the specification's own library takes them, retried, logged, sent again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from backend.config import Settings
from backend.database.session import Database
from backend.domain.states.webhooks import DeliveryStatus
from backend.errors import InvalidInput, NotFound
from backend.services.webhooks.service import RETRY_AFTER_S, jittered, read_secrets
from tests.support.fixtures_webhooks import JOB, SECRET, TROUBLE, Desk, opened, service
from tests.support.web_servers import Answer, redirect, reply, web_server

pytestmark = pytest.mark.anyio

NEW_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(f"sqlite+aiosqlite:///{tmp_path}/rows.db") as database:
        yield database


async def test_a_message_is_signed_so_that_a_receiver_can_verify_it(desk: Desk) -> None:
    message = await desk.message()

    outcome = await desk.service.attempt(message.id)

    (received,) = desk.receiver.requests
    payload = Webhook(SECRET).verify(received.body, dict(received.headers))
    assert payload == {
        "type": "job.completed",
        "timestamp": message.created_at.isoformat(),
        "data": {"job_id": JOB, "conversation_id": "conv_1", "status": "completed"},
    }
    assert (received.method, received.target) == ("POST", "/hook")
    assert received.headers["content-type"] == "application/json"
    assert received.headers["webhook-id"] == message.id
    assert outcome.status == DeliveryStatus.DELIVERED
    assert not outcome.retry


async def test_a_receiver_with_another_secret_refuses_the_message(desk: Desk) -> None:
    await desk.service.attempt((await desk.message()).id)

    (received,) = desk.receiver.requests
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW_SECRET).verify(received.body, dict(received.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(received.body.replace(b"completed", b"failed"), dict(received.headers))


async def test_a_message_that_is_sent_again_later_under_another_time_is_refused(desk: Desk) -> None:
    """The time is signed, so a recorded message is good for the minutes that receivers allow and no longer."""
    await desk.service.attempt((await desk.message()).id)

    (received,) = desk.receiver.requests
    headers = dict(received.headers)
    sent_at = int(headers["webhook-timestamp"])
    assert abs(sent_at - datetime.now(UTC).timestamp()) < 60
    for other in (sent_at + 240, sent_at - 3600):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(received.body, {**headers, "webhook-timestamp": str(other)})


@pytest.mark.parametrize("secret", [SECRET, NEW_SECRET])
async def test_while_a_secret_is_replaced_both_verify(desk: Desk, secret: str) -> None:
    both = service(desk.database, SECRET, NEW_SECRET)

    await both.attempt((await desk.message()).id)

    (received,) = desk.receiver.requests
    assert Webhook(secret).verify(received.body, dict(received.headers))


async def test_a_failed_job_says_why(desk: Desk) -> None:
    await desk.service.attempt((await desk.message("job.failed")).id)

    (received,) = desk.receiver.requests
    assert json.loads(received.body)["data"] == {
        "job_id": JOB,
        "conversation_id": "conv_1",
        "status": "failed",
        "error": TROUBLE["detail"],
    }


async def test_what_came_of_an_attempt_is_written_down(desk: Desk) -> None:
    message = await desk.message()

    await desk.service.attempt(message.id)

    row = await desk.row()
    assert (row.id, row.status, row.attempts, row.last_status, row.last_error) == (
        message.id,
        "delivered",
        1,
        204,
        None,
    )
    assert row.delivered_at is not None
    assert datetime.now(UTC) - row.delivered_at < timedelta(minutes=1)


async def test_after_a_500_the_same_message_is_delivered_by_the_next_attempt(desk: Desk) -> None:
    desk.receiver.answer = reply(500, b"a stack trace")
    message = await desk.message()

    first = await desk.service.attempt(message.id)
    row = await desk.row()
    assert first.retry
    assert (row.status, row.attempts, row.last_status) == ("pending", 1, 500)
    assert row.last_error == "The receiver said 500 Internal Server Error."

    desk.receiver.answer = reply(200)
    second = await desk.service.attempt(message.id)
    row = await desk.row()
    assert not second.retry
    assert (row.status, row.attempts, row.last_status, row.last_error) == ("delivered", 2, 200, None)
    before, after = desk.receiver.requests
    assert (before.headers["webhook-id"], before.body) == (after.headers["webhook-id"], after.body)
    assert Webhook(SECRET).verify(after.body, dict(after.headers))


async def test_messages_are_sent_and_logged_on_postgresql_too(postgres_url: str) -> None:
    async with web_server(reply(500)) as receiver, opened(postgres_url) as database:
        desk = Desk(database, service(database, SECRET), receiver)
        message = await desk.message()
        first = await desk.service.attempt(message.id)
        receiver.answer = reply(204)
        second = await desk.service.attempt(message.id)
        row = await desk.row()

    assert first.retry
    assert not second.retry
    assert (row.status, row.attempts, row.last_status) == ("delivered", 2, 204)


async def test_a_delivered_message_is_not_sent_again(desk: Desk) -> None:
    message = await desk.message()

    await desk.service.attempt(message.id)
    again = await desk.service.attempt(message.id)

    assert again.status == DeliveryStatus.DELIVERED
    assert len(desk.receiver.requests) == 1


async def test_410_gone_ends_the_attempts(desk: Desk) -> None:
    desk.receiver.answer = reply(410)
    message = await desk.message()

    outcome = await desk.service.attempt(message.id)
    await desk.service.attempt(message.id)

    assert outcome.status == DeliveryStatus.FAILED
    assert not outcome.retry
    assert len(desk.receiver.requests) == 1


async def test_the_last_attempt_is_final(desk: Desk) -> None:
    desk.receiver.answer = reply(503)

    outcome = await desk.service.attempt((await desk.message()).id, last=True)

    assert outcome.status == DeliveryStatus.FAILED
    assert (await desk.row()).status == "failed"


@pytest.mark.parametrize("answer", [reply(400), reply(404), reply(302), redirect("/elsewhere")])
async def test_other_refusals_are_tried_again_and_redirects_are_not_followed(desk: Desk, answer: Answer) -> None:
    desk.receiver.answer = answer

    outcome = await desk.service.attempt((await desk.message()).id)

    assert outcome.retry
    assert len(desk.receiver.requests) == 1


async def test_a_receiver_that_does_not_answer_in_time_is_tried_again(desk: Desk) -> None:
    desk.receiver.answer = lambda request, writer: asyncio.sleep(30)
    impatient = service(desk.database, SECRET, timeout_s=0.2)

    outcome = await impatient.attempt((await desk.message()).id)

    assert outcome.retry
    assert (await desk.row()).last_error == "The receiver did not answer within 0.2 s."


async def test_a_receiver_that_is_away_is_tried_again(desk: Desk) -> None:
    async with web_server(reply()) as gone:
        url = gone.url()

    outcome = await desk.service.attempt((await desk.message(url=url)).id)

    row = await desk.row()
    assert outcome.retry
    assert row.last_status is None
    assert "could not be reached" in (row.last_error or "")


async def test_a_receiver_that_moved_into_the_own_network_is_not_called(desk: Desk) -> None:
    async with web_server(reply(200), host="127.0.0.2") as inside:
        outcome = await desk.service.attempt((await desk.message(url=inside.url())).id)

    assert outcome.retry
    assert inside.requests == []
    assert "public internet" in ((await desk.row()).last_error or "")


async def test_two_attempts_at_once_leave_a_delivered_message_delivered(desk: Desk) -> None:
    arrived, release = asyncio.Event(), asyncio.Event()

    async def slow_refusal(request, writer) -> None:
        arrived.set()
        await release.wait()
        reply(500)(request, writer)

    desk.receiver.answer = slow_refusal
    message = await desk.message()
    slow = asyncio.create_task(desk.service.attempt(message.id))
    await arrived.wait()
    desk.receiver.answer = reply(200)
    await desk.service.attempt(message.id)
    release.set()

    assert (await slow).status == DeliveryStatus.DELIVERED
    row = await desk.row()
    assert (row.status, row.attempts, row.last_error) == ("delivered", 2, None)


async def test_a_message_that_does_not_exist_is_not_found(desk: Desk) -> None:
    with pytest.raises(NotFound):
        await desk.service.attempt("msg_none")
    with pytest.raises(NotFound):
        await desk.service.list("job_none")


async def test_without_a_secret_callbacks_are_refused_at_once(database: Database) -> None:
    with pytest.raises(InvalidInput, match="WEBHOOK_SECRET"):
        await service(database).callback_for("https://example.org/hook")


async def test_a_secret_that_was_taken_away_leaves_a_trace_and_no_unsigned_message(desk: Desk) -> None:
    await service(desk.database).attempt((await desk.message()).id)

    assert desk.receiver.requests == []
    assert "WEBHOOK_SECRET" in ((await desk.row()).last_error or "")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.2/", "http://[::1]:8080/", "http://169.254.169.254/", "https://u:p@127.0.0.1/", "hook"]
)
async def test_a_callback_that_may_not_be_called_is_refused_at_once(desk: Desk, url: str) -> None:
    with pytest.raises(InvalidInput):
        await desk.service.validate(url)


async def test_a_request_without_a_callback_gets_the_configured_one(database: Database) -> None:
    configured = service(database, SECRET, default_url="https://example.org/all")

    assert await configured.callback_for(None) == "https://example.org/all"
    assert await configured.callback_for("http://127.0.0.1:8080/mine") == "http://127.0.0.1:8080/mine"
    assert await service(database, SECRET).callback_for(None) is None


def test_attempts_go_on_for_about_a_day() -> None:
    assert 24 * 3600 < sum(RETRY_AFTER_S) < 30 * 3600
    assert list(RETRY_AFTER_S) == sorted(RETRY_AFTER_S)
    assert all(80 <= jittered(100) <= 120 for _ in range(100))
    assert len({jittered(100) for _ in range(10)}) > 1


@pytest.mark.parametrize(
    "secret", ["", "secret", SECRET.removeprefix("whsec_"), "whsec_c2hvcnQ=", "whsec_!!!", "whsec_"]
)
def test_a_secret_of_wrong_form_stops_the_start_and_is_not_repeated(secret: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(webhook_secret=f"{SECRET} {secret}" if secret else "whsec_")

    assert "openssl rand" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_secrets_are_read_in_their_order() -> None:
    assert list(read_secrets(f" {SECRET}\n{NEW_SECRET} ")) == [SECRET, NEW_SECRET]


def test_a_configured_callback_needs_a_secret() -> None:
    with pytest.raises(ValidationError, match="WEBHOOK_SECRET"):
        Settings(webhook_url="https://example.org/hook")


def test_a_configured_callback_must_be_a_web_address() -> None:
    with pytest.raises(ValidationError, match="no http or https URL"):
        Settings(webhook_url="example.org/hook", webhook_secret=SECRET)
