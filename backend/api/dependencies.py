"""What routes ask for: the opened services of this app, and who is asking."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from backend.api.middleware.access import caller_of
from backend.wiring.services import Services


def get_services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


def get_owner(request: Request) -> str:
    return caller_of(request.scope).name


def get_scope(request: Request) -> str | None:
    caller = caller_of(request.scope)
    return None if caller.is_admin else caller.name


ServicesDep = Annotated[Services, Depends(get_services)]
OwnerDep = Annotated[str, Depends(get_owner)]
"""The name of the key that asks; empty where there are no keys."""
ScopeDep = Annotated[str | None, Depends(get_scope)]
"""Whose uploads the caller may see and remove: None for those of everybody."""
