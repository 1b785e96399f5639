"""Webhook messages in the API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from backend.domain.states.webhooks import DeliveryStatus
from backend.services.webhooks.views import DeliveryView


class DeliveryOut(BaseModel):
    """A message about a job, and its delivery state."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(description="The `webhook-id` that the receiver sees", examples=["msg_0b6c1d2e3f4a5b4f2c9a51d0"])
    event: str = Field(examples=["job.completed"])
    url: str
    status: DeliveryStatus = Field(description="pending: another attempt follows; failed: no attempt follows")
    attempts: int
    last_status: int | None = Field(
        description="HTTP status of the last response; null if there was none", examples=[500]
    )
    last_error: str | None = Field(examples=["The receiver said 500 Internal Server Error."])
    created_at: datetime
    delivered_at: datetime | None


class DeliveriesOut(BaseModel):
    deliveries: list[DeliveryOut]

    @classmethod
    def from_deliveries(cls, found: Sequence[DeliveryView]) -> DeliveriesOut:
        return cls(deliveries=[DeliveryOut.model_validate(item) for item in found])
