"""A request's body as it arrives. `middleware/body_limits.py` says how long it may take."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request


async def body_of(request: Request) -> AsyncGenerator[bytes, None]:
    """The body's bytes in the pieces they come in.

    Raises:
        HTTPException: 400 if the client goes away.
    """
    try:
        async for data in request.stream():
            if data:
                yield data
    except ClientDisconnect as error:
        raise HTTPException(400, "The client closed the connection before the upload was complete.") from error
