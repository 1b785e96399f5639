"""The stores, for whoever runs Aperta: what is where, whether it is as the rows say, and putting it right."""

from __future__ import annotations

from fastapi import APIRouter

from backend.api.dependencies import ServicesDep
from backend.api.middleware.access import AdminRoute
from backend.api.problems import problem_responses
from backend.api.schemas.storage import DrainIn, DrainOut, RepairIn, RepairOut, ScopeIn, UsageOut, VerifyOut

router = APIRouter(prefix="/storage", tags=["storage"], route_class=AdminRoute, responses=problem_responses(403))


@router.get("/usage", summary="Objects and bytes by store and kind", responses=problem_responses(503))
async def get_usage(services: ServicesDep) -> UsageOut:
    return UsageOut.from_usage(await services.custody.usage(), await services.drain.backlog())


@router.post(
    "/verify", summary="Compare rows and stores, both ways; change nothing", responses=problem_responses(409, 422, 503)
)
async def verify(services: ServicesDep, asked: ScopeIn) -> VerifyOut:
    """Looks at a part and answers within about `max_seconds`; pass the answer's `cursor` to go on."""
    return VerifyOut.from_report(await services.custody.verify(asked.to_scope()))


@router.post(
    "/repair",
    summary="Put right what verify finds, or say how",
    responses=problem_responses(409, 422, 503),
)
async def repair(services: ServicesDep, asked: RepairIn) -> RepairOut:
    """Changes nothing unless `apply` is true. Nothing that may be a recording is deleted: what belongs to nobody is
    moved to the quarantine."""
    return RepairOut.from_report(await services.custody.repair(asked.to_scope(), apply=asked.apply))


@router.post("/drain", summary="Move to S3 what was saved locally", responses=problem_responses(422, 503))
async def drain(services: ServicesDep, asked: DrainIn) -> DrainOut:
    """Happens by itself as well, whenever S3 answers."""
    if asked.retry_parked:
        await services.drain.retry_parked()
    report = await services.drain.drain_all(max_seconds=asked.max_seconds)
    return DrainOut.from_report(report, await services.drain.backlog())
