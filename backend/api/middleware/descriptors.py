"""Descriptors of open files and connections: how many there may be, and the answer when all are in use."""

from __future__ import annotations

import errno
import logging
import resource
import time

from fastapi import FastAPI, HTTPException, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.problems import http_problem

logger = logging.getLogger(__name__)

SPARE_DESCRIPTORS = 128
"""For the database, models, decoders and files that are open beside the connections and their uploads."""
PER_CONNECTION = 2
"""A connection, and the file that is sent over it."""
LOG_AGAIN_S = 60.0
RETRY_AFTER_S = 5


class RareLine:
    """A line of the log that is written once in a while, however often it is meant.

    Args:
        again_s: how long it stays silent after it was written.
    """

    def __init__(self, again_s: float = LOG_AGAIN_S) -> None:
        self._again_s = again_s
        self._silent_until = 0.0

    def error(self, message: str, *values: object) -> None:
        if time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + self._again_s
            logger.error(message, *values)


def add_descriptor_guard(app: FastAPI) -> None:
    """Answer 503 to what cannot be opened for want of descriptors."""
    app.add_middleware(DescriptorGuard)


class DescriptorGuard:
    """ASGI middleware: without descriptors the answer is 503, and the log has one line of it, once a minute."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._line = RareLine()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, note)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._line.error("no file can be opened (%s): requests are refused. Raise ulimit -n", error.strerror)
            if not begun:
                refusal = HTTPException(
                    503,
                    "The server has too many files open at the moment. Try again in a while.",
                    {"Retry-After": str(RETRY_AFTER_S)},
                )
                await http_problem(Request(scope), refusal)(scope, receive, send)


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit of open files to the hard one; returns what holds then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:
        logger.warning("the limit of open files stays at %d: %s", soft, error)
        return soft
    return hard


def connection_limit(wanted: int, descriptors: int, uploads: int) -> int:
    """How many connections leave enough descriptors for the rest.

    Args:
        wanted: the most that are asked for.
        descriptors: how many files the process may have open; below 0: any number.
        uploads: how many uploads are received at once, each into a file.
    """
    if descriptors < 0:
        return wanted
    reserved = min(descriptors // 2, SPARE_DESCRIPTORS + uploads)
    return min(wanted, max(1, (descriptors - reserved) // PER_CONNECTION))
