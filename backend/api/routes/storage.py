"""The stores, for operators: usage, verification, repair, and moving objects to S3."""

from __future__ import annotations

from fastapi import APIRouter

from backend.api.dependencies import ServicesDep
from backend.api.middleware.access import AdminRoute
from backend.api.problems import problem_responses
from backend.api.schemas.storage import DrainIn, DrainOut, RepairIn, RepairOut, ScopeIn, UsageOut, VerifyOut

router = APIRouter(prefix="/storage", tags=["storage"], route_class=AdminRoute, responses=problem_responses(403))


@router.get("/usage", summary="Objects and bytes by store and kind", responses=problem_responses(503))
async def get_usage(services: ServicesDep) -> UsageOut:
    return UsageOut.from_usage(await services.reconciliation.usage(), await services.drain.backlog())


@router.post(
    "/verify",
    summary="Compare rows and stores in both directions, without changes",
    responses=problem_responses(409, 422, 503),
)
async def verify(services: ServicesDep, asked: ScopeIn) -> VerifyOut:
    """Checks a part and answers within about `max_seconds`; pass the returned `cursor` to continue."""
    return VerifyOut.from_report(await services.reconciliation.verify(asked.to_scope()))


@router.post(
    "/repair",
    summary="Repair what verify finds, or report what would be done",
    responses=problem_responses(409, 422, 503),
)
async def repair(services: ServicesDep, asked: RepairIn) -> RepairOut:
    """Changes nothing unless `apply` is true. Nothing that may be a recording is deleted: objects that belong to no
    conversation are moved to the quarantine."""
    return RepairOut.from_report(await services.reconciliation.repair(asked.to_scope(), apply=asked.apply))


@router.post("/drain", summary="Move locally saved objects to S3", responses=problem_responses(422, 503))
async def drain(services: ServicesDep, asked: DrainIn) -> DrainOut:
    """This also happens automatically while S3 is reachable."""
    if asked.retry_parked:
        await services.drain.retry_parked()
    report = await services.drain.drain_all(max_seconds=asked.max_seconds)
    return DrainOut.from_report(report, await services.drain.backlog())
