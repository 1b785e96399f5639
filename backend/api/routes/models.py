"""The transcription models on this server's disk."""

from __future__ import annotations

import anyio.to_thread
from fastapi import APIRouter

from backend.api.dependencies import ServicesDep
from backend.api.problems import problem_responses
from backend.api.schemas.models import ModelList

router = APIRouter(prefix="/models", tags=["models"])


@router.get("", summary="Models that a request may name", responses=problem_responses(503))
async def list_models(services: ServicesDep) -> ModelList:
    """With WORKERS=none these are the models beside this server; those of the workers may be others."""
    return ModelList.from_states(await anyio.to_thread.run_sync(services.speech.models.states))
