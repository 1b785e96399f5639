"""Wrong keys: a peer that sends many is slowed down, in bounded memory and without shutting its neighbours out."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections import OrderedDict
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Scope

from backend.api.middleware.peers import peer_name

FREE_FAILURES = 10
"""Wrong keys of a peer within `WINDOW_S` that cost it nothing."""
WINDOW_S = 60.0
LONGEST_DELAY_S = 2.0
DELAY_STEP_S = 0.1
PEERS_KEPT = 10_000


@dataclass(slots=True)
class _Failures:
    count: int
    since: float


class WrongKeys:
    """Counts wrong keys by peer.

    A peer with too many is answered with 429 to every further wrong key, after a delay that grows up to
    `LONGEST_DELAY_S`. A right key that comes from there, behind the same proxy perhaps, waits as long the first time
    and is never refused.
    """

    def __init__(self) -> None:
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._familiar: OrderedDict[bytes, None] = OrderedDict()

    async def wait(self, scope: Scope) -> None:
        """Delay a request whose key is not known to be right, if its peer sent many wrong ones."""
        delay_s = min(LONGEST_DELAY_S, DELAY_STEP_S * self._excess(_peer(scope)))
        if delay_s > 0 and (digest := _digest(scope)) is not None and digest not in self._familiar:
            await asyncio.sleep(delay_s)

    def note_right(self, scope: Scope) -> None:
        """The key of this request is right: from this peer it is not delayed any more."""
        if (digest := _digest(scope)) is not None and self._failures:
            self._familiar[digest] = None
            self._familiar.move_to_end(digest)
            _shorten(self._familiar)

    def refusal(self, scope: Scope, error: HTTPException) -> HTTPException:
        """The answer to a request that was refused: 429 in place of 401 if its peer sent many wrong keys."""
        if error.status_code != 401 or _digest(scope) is None:
            return error
        peer, now = _peer(scope), time.monotonic()
        failures = self._failures.setdefault(peer, _Failures(0, now))
        if now - failures.since > WINDOW_S:
            failures.count, failures.since = 0, now
        failures.count += 1
        self._failures.move_to_end(peer)
        _shorten(self._failures)
        if failures.count <= FREE_FAILURES:
            return error
        retry_after_s = max(1, math.ceil(failures.since + WINDOW_S - now))
        return HTTPException(
            429,
            f"{failures.count} wrong keys came from this address within a minute. Check the key's name and secret, "
            "and try again later.",
            {"Retry-After": str(retry_after_s)},
        )

    def _excess(self, peer: str) -> int:
        failures = self._failures.get(peer)
        if failures is None or time.monotonic() - failures.since > WINDOW_S:
            return 0
        return max(0, failures.count - FREE_FAILURES)


def _peer(scope: Scope) -> str:
    """As the server says, which knows the address that a trusted proxy forwards."""
    client = scope.get("client")
    return peer_name(client[0]) if client else ""


def _digest(scope: Scope) -> bytes | None:
    """Of the key that a request brings, and of where it comes from."""
    headers = Headers(scope=scope)
    given = [headers.get(name, "") for name in ("x-api-key", "authorization")]
    if not any(given):
        return None
    return hashlib.sha256("\0".join([_peer(scope), *given]).encode("latin-1", "replace")).digest()


def _shorten(kept: OrderedDict[str, _Failures] | OrderedDict[bytes, None]) -> None:
    while len(kept) > PEERS_KEPT:
        kept.popitem(last=False)
