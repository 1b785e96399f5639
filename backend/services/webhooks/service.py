"""Webhooks: signed messages about ended jobs, after the Standard Webhooks specification, and their log.

One message is one row; its id is the `webhook-id` by which a receiver recognises repeats. The caller
repeats `attempt` after the pauses of `RETRY_AFTER_S` for as long as the outcome says `retry`.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
from sqlalchemy.ext.asyncio import AsyncSession
from standardwebhooks import Webhook

from backend.database.jobs import get_job
from backend.database.models import Delivery, Job
from backend.database.session import Database
from backend.database.webhooks import get_delivery, list_deliveries
from backend.domain.states.webhooks import DeliveryStatus
from backend.errors import AppError, InvalidInput
from backend.services.remote.client import OutboundClient
from backend.services.webhooks.views import DeliveryView, view_of

logger = logging.getLogger(__name__)

MINUTE_S, HOUR_S = 60, 3600
RETRY_AFTER_S: Sequence[float] = (5, 5 * MINUTE_S, 30 * MINUTE_S, 2 * HOUR_S, 5 * HOUR_S, 10 * HOUR_S, 10 * HOUR_S)
"""Pauses between attempts: eight attempts in a little more than a day."""

JITTER = 0.2
GONE = 410
SECRET_PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)
MAX_ERROR_CHARS = 200


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """How a message stands after an attempt: pending means that another one should follow."""

    status: DeliveryStatus

    @property
    def retry(self) -> bool:
        return self.status == DeliveryStatus.PENDING


class WebhookService:
    """
    Args:
        secrets: what messages are signed with, as `whsec_…`; several while one replaces another. None: no callbacks.
        default_url: called for jobs whose request names no callback.
        timeout_s: longest time for one attempt.
        schedule: makes the attempts for a message; by default there is one, at once.
    """

    def __init__(
        self,
        database: Database,
        client: OutboundClient,
        *,
        secrets: Sequence[str] = (),
        default_url: str | None = None,
        timeout_s: float = 15,
        schedule: Callable[[str], Awaitable[object]] | None = None,
    ) -> None:
        self._database = database
        self._client = client
        self._signers = [Webhook(secret) for secret in secrets]
        self._default_url = default_url
        self._timeout_s = timeout_s
        self._schedule = schedule or self.attempt

    async def callback_for(self, url: str | None) -> str | None:
        """The address to tell about a job: the one asked for, else the configured one, else none.

        Raises:
            InvalidInput: the one asked for cannot be used, or nothing can be signed.
        """
        if not url:
            return self._default_url
        await self.validate(url)
        return url

    async def validate(self, url: str) -> None:
        """Check a callback address that a user gave, without calling it.

        Raises:
            InvalidInput: it cannot be used, or nothing can be signed.
        """
        if not self._signers:
            raise InvalidInput(
                "Callbacks are off, because there is nothing to sign them with. Set WEBHOOK_SECRET, or leave "
                "callback_url out and ask GET /jobs/{job_id}."
            )
        await self._client.check(url)

    def create(self, session: AsyncSession, job_id: str, url: str, event: str) -> Delivery:
        """Add a message to the caller's transaction; schedule it once that is committed.

        Args:
            event: "job.completed", "job.failed" or "job.cancelled".
        """
        delivery = Delivery(
            id=f"msg_{uuid4().hex}",
            job_id=job_id,
            url=url,
            event=event,
            status=DeliveryStatus.PENDING,
            attempts=0,
            created_at=datetime.now(UTC),
        )
        session.add(delivery)
        return delivery

    async def attempt(self, delivery_id: str, *, last: bool = False) -> DeliveryOutcome:
        """Send a message once and write down what came of it; one that is not pending is not sent.

        Args:
            last: no other attempt follows, so a failure is final.

        Raises:
            NotFound: there is no such message, or no longer.
        """
        async with self._database.transaction() as session:
            delivery = await get_delivery(session, delivery_id)
            job = await get_job(session, delivery.job_id)
        if delivery.status != DeliveryStatus.PENDING:
            return DeliveryOutcome(DeliveryStatus(delivery.status))
        status, trouble = await self._send(delivery, job)
        host = urlsplit(delivery.url).hostname
        level = logging.WARNING if trouble else logging.INFO
        logger.log(level, "message %s (%s) to %s: %s", delivery.id, delivery.event, host, trouble or "delivered")
        return await self._record(delivery_id, status, trouble, final=last or status == GONE)

    async def _record(
        self, delivery_id: str, status: int | None, trouble: str | None, *, final: bool
    ) -> DeliveryOutcome:
        async with self._database.transaction() as session:
            row = await get_delivery(session, delivery_id, lock=True)
            row.attempts += 1
            if row.status != DeliveryStatus.DELIVERED:  # another attempt may have delivered it
                row.last_status, row.last_error = status, trouble and trouble[:MAX_ERROR_CHARS]
                if trouble is None:
                    row.status, row.delivered_at = DeliveryStatus.DELIVERED, datetime.now(UTC)
                elif final:
                    row.status = DeliveryStatus.FAILED
            return DeliveryOutcome(DeliveryStatus(row.status))

    async def redeliver(self, job_id: str, delivery_id: str) -> DeliveryView:
        """Send a message again, even one that was delivered.

        Returns:
            The message as scheduled.

        Raises:
            NotFound
        """
        async with self._database.transaction() as session:
            row = await get_delivery(session, delivery_id, job_id=job_id, lock=True)
            row.status, row.delivered_at, row.last_error = DeliveryStatus.PENDING, None, None
        await self._schedule(delivery_id)
        async with self._database.transaction() as session:
            return view_of(await get_delivery(session, delivery_id, job_id=job_id))

    async def list(self, job_id: str) -> Sequence[DeliveryView]:
        """Every message about a job, oldest first.

        Raises:
            NotFound: there is no such job.
        """
        async with self._database.transaction() as session:
            await get_job(session, job_id)
            return [view_of(row) for row in await list_deliveries(session, job_id)]

    async def _send(self, delivery: Delivery, job: Job) -> tuple[int | None, str | None]:
        """Status of the answer, and what went wrong."""
        if not self._signers:
            return None, "WEBHOOK_SECRET is not set, so nothing can be signed."
        body = _payload(delivery, job)
        try:
            with anyio.fail_after(self._timeout_s):
                async with self._client.stream(
                    "POST",
                    delivery.url,
                    headers={"Content-Type": "application/json", **self._signed(delivery.id, body)},
                    content=body.encode(),
                    max_bytes=0,
                    stall_timeout_s=self._timeout_s,
                ) as answer:
                    return answer.status, None if answer.status // 100 == 2 else f"The receiver said {answer.phrase}."
        except TimeoutError:
            return None, f"The receiver did not answer within {self._timeout_s:g} s."
        except AppError as error:
            return None, str(error)

    def _signed(self, delivery_id: str, body: str) -> dict[str, str]:
        now = datetime.now(UTC)
        return {
            "webhook-id": delivery_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signer.sign(delivery_id, now, body) for signer in self._signers),
        }


def jittered(pause_s: float) -> float:
    """A pause that is up to a fifth shorter or longer, so that receivers are not called all at once."""
    return pause_s * random.uniform(1 - JITTER, 1 + JITTER)


def read_secrets(text: str) -> Sequence[str]:
    """The signing secrets of WEBHOOK_SECRET, which are separated by blanks.

    Raises:
        ValueError: one is no secret; the message does not repeat it.
    """
    secrets = text.split()
    for secret in secrets:
        try:
            size = len(base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True))
        except binascii.Error:
            size = 0
        if not secret.startswith(SECRET_PREFIX) or size not in SECRET_BYTES:
            raise ValueError(
                f"write {SECRET_PREFIX} and 24 to 64 random bytes in base64; "
                f'`echo "{SECRET_PREFIX}$(openssl rand -base64 32)"` makes one'
            )
    return secrets


def _payload(delivery: Delivery, job: Job) -> str:
    """The same at every attempt: the row, and not the job's state of now, says what happened and when."""
    data: dict[str, object] = {
        "job_id": job.id,
        "conversation_id": job.conversation_id,
        "status": delivery.event.removeprefix("job."),
    }
    if delivery.event == "job.failed" and job.error:
        data["error"] = job.error.get("detail")
    return json.dumps({"type": delivery.event, "timestamp": delivery.created_at.isoformat(), "data": data})
