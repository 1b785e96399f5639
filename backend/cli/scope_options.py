"""The options with which `aperta storage verify` and `repair` say what to look at, in one place."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from backend.services.reconciliation import Bounds, Grace, Scope

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Interrupted = Callable[[], bool]
ScopeUntil = Callable[[Interrupted], Scope]
"""What to look at, once it is known what interrupts that."""


def takes_scope(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's parameter `scope` by the options of `scope_of`, and pass it what they say."""
    shared = inspect.signature(scope_of, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True)

    @wraps(command)
    def run(**given: Any) -> None:
        command(scope=scope_of(**{name: given.pop(name) for name in shared}), **given)

    options: list[inspect.Parameter] = []
    for name, parameter in own.parameters.items():
        options += shared.values() if name == "scope" else [parameter]
    run.__signature__ = own.replace(parameters=options)  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


def scope_of(
    deep: Annotated[bool, typer.Option("--deep", help="Read every object and compare its SHA-256.")] = False,
    max_bytes_per_s: Annotated[
        int, typer.Option("--max-bytes-per-s", min=0, help="Read no faster than this; 0: no limit.")
    ] = 0,
    grace: Annotated[
        str, typer.Option("--grace", metavar="TIME", help="Report objects without a row from this age on.")
    ] = "1h",
    stale_after: Annotated[
        str, typer.Option("--stale-after", metavar="TIME", help="Report unfinished uploads from this age on.")
    ] = "24h",
    cursor: Annotated[str | None, typer.Option(help="Continue where an earlier run stopped.")] = None,
    max_objects: Annotated[int | None, typer.Option(min=1, help="Stop after about this many rows and objects.")] = None,
    max_seconds: Annotated[float | None, typer.Option(min=0, help="Stop after about this many seconds.")] = None,
) -> ScopeUntil:
    """The options as a scope.

    Raises:
        typer.BadParameter: an age is no duration.
    """
    ages = Grace(duration_s(grace), duration_s(stale_after))

    def scope(interrupted: Interrupted) -> Scope:
        bounds = Bounds(cursor, _or_unlimited(max_objects), _or_unlimited(max_seconds), interrupted)
        return Scope(deep, max_bytes_per_s, ages, bounds)

    return scope


def duration_s(text: str) -> float:
    """`90s`, `15m`, `1h` or `30d` in seconds.

    Raises:
        typer.BadParameter
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no duration; write 90s, 15m, 1h or 30d.")
    return float(found[1]) * _UNITS_S[found[2]]


def _or_unlimited(limit: float | None) -> float:
    return math.inf if limit is None else limit
