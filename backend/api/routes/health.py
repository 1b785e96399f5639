"""Liveness, readiness, components and metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response
from starlette.exceptions import HTTPException

from backend import __version__
from backend.api.dependencies import ServicesDep
from backend.api.problems import problem_responses
from backend.api.schemas.health import Health, ScheduleRunOut
from backend.services.speech.pipeline import ATTRIBUTION

router = APIRouter(prefix="/health", tags=["health"])
metrics_router = APIRouter(tags=["health"])


@metrics_router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(services: ServicesDep) -> Response:
    return Response(await services.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("", summary="State, engines, storage and database")
async def health(services: ServicesDep) -> Health:
    s3_wanted = not services.settings.storage.is_local_only
    info = await services.storage.get_info(ask=False)
    return Health(
        status="degraded" if (s3_wanted and info.reason) or info.disk != "ok" else "ok",
        version=__version__,
        ready=services.ready,
        engines=services.speech.engines,
        storage=info.storage_type,
        storage_reason=info.reason,
        breaker=info.breaker,
        disk=info.disk,
        database=services.database.kind,
        attribution=list(ATTRIBUTION),
        schedule={kind: ScheduleRunOut.from_run(run) for kind, run in services.schedule.last().items()},
    )


@router.get("/live", status_code=204, summary="The process answers")
async def live() -> Response:
    return Response(status_code=204)


@router.get("/ready", status_code=204, summary="Ready: models are loaded", responses=problem_responses(503))
async def ready(services: ServicesDep) -> Response:
    if not services.ready:
        raise HTTPException(503, "The models are still loading.", headers={"Retry-After": "2"})
    return Response(status_code=204)
