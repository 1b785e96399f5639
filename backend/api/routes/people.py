"""People whose voices are known: enrolling and forgetting. With KNOWN_VOICES=off only forgetting works."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from backend.api.dependencies import ServicesDep
from backend.api.problems import problem_responses
from backend.api.schemas.people import PeoplePage, PersonIn, PersonOut, VoiceIn

router = APIRouter(prefix="/people", tags=["people"])


@router.post(
    "", status_code=201, summary="Add a person without a voice", responses=problem_responses(400, 409, 422, 503)
)
async def create_person(person: PersonIn, services: ServicesDep) -> PersonOut:
    return PersonOut.model_validate(await services.people.create(person.name))


@router.get("", summary="List people, by name", responses=problem_responses(409, 422, 503))
async def list_people(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> PeoplePage:
    found, total = await services.people.list(limit=limit, offset=offset)
    return PeoplePage.from_views(found, total, limit, offset)


@router.get("/{person_id}", summary="One person", responses=problem_responses(404, 409, 503))
async def get_person(person_id: str, services: ServicesDep) -> PersonOut:
    return PersonOut.model_validate(await services.people.get(person_id))


@router.delete(
    "/{person_id}",
    status_code=204,
    summary="Forget a person: the name, every print and every stored voice",
    responses=problem_responses(404, 409, 503),
)
async def delete_person(person_id: str, services: ServicesDep) -> None:
    """Existing transcripts keep the name. Also works with KNOWN_VOICES=off."""
    await services.people.delete(person_id)


@router.post(
    "/{person_id}/voice",
    status_code=201,
    summary="Enrol a person with a speaker's voice",
    responses=problem_responses(400, 404, 409, 422, 503),
)
async def add_voice(person_id: str, voice: VoiceIn, services: ServicesDep) -> PersonOut:
    """Later recordings show the name. More prints, from other rooms and microphones, make recognition more reliable."""
    return PersonOut.model_validate(await services.people.add_voice(person_id, voice.conversation_id, voice.speaker))


@router.delete(
    "/{person_id}/voice",
    status_code=204,
    summary="Forget a person's voice and keep the name",
    responses=problem_responses(404, 409, 503),
)
async def delete_voice(person_id: str, services: ServicesDep) -> None:
    """Existing transcripts keep the name. Also works with KNOWN_VOICES=off."""
    await services.people.delete_voice(person_id)
