"""Webhook messages about a job: the log, and sending one again."""

from __future__ import annotations

from fastapi import APIRouter

from backend.api.dependencies import ServicesDep
from backend.api.problems import problem_responses
from backend.api.schemas.webhooks import DeliveriesOut, DeliveryOut

router = APIRouter(prefix="/jobs/{job_id}/deliveries", tags=["jobs"])


@router.get("", summary="Webhook messages about a job, oldest first", responses=problem_responses(404, 503))
async def list_deliveries(job_id: str, services: ServicesDep) -> DeliveriesOut:
    return DeliveriesOut.from_deliveries(await services.webhooks.list(job_id))


@router.post(
    "/{delivery_id}/redeliver",
    status_code=202,
    summary="Send a message again",
    responses=problem_responses(404, 503),
)
async def redeliver(job_id: str, delivery_id: str, services: ServicesDep) -> DeliveryOut:
    """Delivered messages can be sent again, too. The `webhook-id` stays the same, so receivers can detect repeats."""
    return DeliveryOut.model_validate(await services.webhooks.redeliver(job_id, delivery_id))
