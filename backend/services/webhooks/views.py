"""What a caller gets of a message to a webhook: a value, made from its row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from backend.database.models import Delivery
from backend.domain.states.webhooks import DeliveryStatus


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """A message about a job, and what became of it."""

    id: str
    event: str
    url: str
    status: DeliveryStatus
    attempts: int
    last_status: int | None
    last_error: str | None
    created_at: datetime
    delivered_at: datetime | None


def view_of(row: Delivery) -> DeliveryView:
    return DeliveryView(
        row.id,
        row.event,
        row.url,
        DeliveryStatus(row.status),
        row.attempts,
        row.last_status,
        row.last_error,
        row.created_at,
        row.delivered_at,
    )
