"""A request's body as it arrives, with an end to waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request


async def body_of(request: Request, stall_timeout_s: float) -> AsyncGenerator[bytes, None]:
    """The body's bytes in the pieces they come in.

    Raises:
        HTTPException: 400 if the client goes away, 408 if nothing comes for so long.
    """
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(stall_timeout_s):
                data = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise HTTPException(408, f"No bytes came for {stall_timeout_s:g} s: the upload was given up.") from error
        except ClientDisconnect as error:
            raise HTTPException(400, "The client closed the connection before the upload was complete.") from error
        if data:
            yield data
