"""Those who upload, read and delete while things break, and what they were answered."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from benchmarks.torture.ledger import Outcome, Sent, Tally
from tests.support.media import wav_bytes

ANSWER_WITHIN_S = 45.0
PIECE_BYTES = 16 * 1024


class Clients:
    """
    Args:
        seed: decides what is sent.

    Attributes:
        sent: every upload.
        tally: what is counted.
        fault: what breaks just now.
    """

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self.tally = Tally()
        self.fault = ""
        self.sent: list[Sent] = []
        self._http = httpx.AsyncClient(
            timeout=ANSWER_WITHIN_S, limits=httpx.Limits(max_keepalive_connections=0), trust_env=False
        )

    async def hang_up(self) -> None:
        await self._http.aclose()

    def turn_to(self, url: str) -> None:
        """Where the server is now."""
        self._http.base_url = httpx.URL(url)

    async def answers(self, url: str) -> bool:
        """Whether a server is up."""
        with contextlib.suppress(httpx.HTTPError):
            return (await self._http.get(f"{url}/health/live", timeout=2)).status_code == 204
        return False

    def recording(self, size_bytes: int) -> bytes:
        """Bytes that no other recording has."""
        return wav_bytes(self.random.randbytes(size_bytes))

    async def upload(self, content: bytes, *, name: str = "meeting.wav", pause_s: float = 0.0) -> Sent:
        """Send a recording, all at once or slowly; half of the clients wait for the transcript."""
        sent = Sent(hashlib.sha256(content).hexdigest(), len(content), self.tally.rounds, self.fault)
        self.sent.append(sent)
        path = f"/audio/process{self.random.choice(('', '?async=true'))}"
        headers = {"Content-Type": "multipart/form-data; boundary=torture"}
        try:
            answer = await self._http.post(path, content=_body(content, name, pause_s), headers=headers)
        except httpx.HTTPError:
            return sent
        sent.status = answer.status_code
        if answer.status_code in (200, 202):
            sent.outcome, sent.conversation_id = Outcome.ACCEPTED, answer.json()["conversation_id"]
        else:
            sent.outcome = Outcome.REFUSED
        return sent

    async def delete(self, sent: Sent) -> None:
        if sent.deleting:
            return  # the second of two deletes is rightly answered 404
        sent.deleting = True
        with contextlib.suppress(httpx.HTTPError):
            answer = await self._http.delete(f"/conversations/{sent.conversation_id}")
            sent.deleted = answer.status_code in (202, 204)
            if answer.status_code == 404:
                self.tally.complain("lost", f"{sent.conversation_id} was accepted, completed, and is not found")

    async def read(self, sent: Sent, *, direct: bool = True) -> int | None:
        """Fetch a recording and look whether it is the right one.

        Args:
            direct: follow a redirect to S3; without, be content with it.

        Returns:
            The status; None if nobody answered.
        """
        try:
            answer = await self._http.get(f"/conversations/{sent.conversation_id}/audio", follow_redirects=False)
            if answer.status_code == 307 and direct:
                answer = await self._http.get(answer.headers["location"])
        except httpx.HTTPError:
            return None
        if answer.status_code == 200 and hashlib.sha256(answer.content).hexdigest() != sent.sha256:
            self.tally.complain("served_wrong", f"{sent.conversation_id}: other bytes than were sent")
        if answer.status_code == 404 and not sent.deleting:
            self.tally.complain("served_wrong", f"{sent.conversation_id}: {answer.text}")
        return answer.status_code

    async def post(self, path: str, body: dict[str, object] | None = None) -> Any:
        """What an operator asks for; None if it cannot be had now."""
        with contextlib.suppress(httpx.HTTPError):
            answer = await self._http.post(path, json=body or {})
            return answer.json() if answer.is_success else None
        return None

    def count(self) -> None:
        """Put what came of the uploads into the tally."""
        outcomes = Counter(sent.outcome for sent in self.sent)
        self.tally.accepted += outcomes[Outcome.ACCEPTED]
        self.tally.refused += outcomes[Outcome.REFUSED]
        self.tally.unknown += outcomes[Outcome.UNKNOWN]
        self.tally.deleted += sum(sent.deleted for sent in self.sent)
        self.tally.answers.update((sent.fault, str(sent.status or "none")) for sent in self.sent)

    def some(self, count: int, wanted: Callable[[Sent], bool] = lambda sent: sent.readable) -> list[Sent]:
        found = [sent for sent in self.sent if wanted(sent)]
        return self.random.sample(found, min(count, len(found)))


async def _body(content: bytes, name: str, pause_s: float) -> AsyncIterator[bytes]:
    disposition = f'Content-Disposition: form-data; name="file"; filename="{name}"'
    yield f"--torture\r\n{disposition}\r\nContent-Type: audio/wav\r\n\r\n".encode()
    size = PIECE_BYTES if pause_s else 1024 * 1024
    for start in range(0, len(content), size):
        yield content[start : start + size]
        if pause_s:
            await asyncio.sleep(pause_s)
    yield b"\r\n--torture--\r\n"
