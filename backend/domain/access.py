"""Who may use an installation: named keys, some of them administrators'; and how much of it one may use. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,60}")
_SECRET = re.compile(r"[!-~]{16,}")  # what every HTTP client can send in a header


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Where there are no keys, everybody is this same nameless administrator."""

    name: str = ""
    is_admin: bool = True


@dataclass(frozen=True, slots=True)
class AccessKeys:
    """SHA-256 of each key's secret, by name; and which names are administrators."""

    digests: Mapping[str, bytes]
    admins: frozenset[str]

    def find(self, secret: bytes, name: str | None = None) -> Caller | None:
        """Return the caller who owns this secret, or None. If `name` is given it must match. Runs in constant time."""
        digest = hashlib.sha256(secret).digest()
        matches = [hmac.compare_digest(digest, known) for known in self.digests.values()]
        found = next((key for key, same in zip(self.digests, matches, strict=True) if same), None)
        if found is None or name not in (None, found):
            return None
        return Caller(found, found in self.admins)


def read_keys(text: str) -> Mapping[str, bytes]:
    """Read `name:secret` entries, separated by blanks or commas.

    Raises:
        ValueError: an entry is malformed; the message gives its number and repeats nothing of it.
    """
    digests: dict[str, bytes] = {}
    for number, entry in enumerate(_entries(text), start=1):
        name, colon, secret = entry.partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise ValueError(
                f"entry {number} does not begin with a name of 1 to 60 letters, digits or _.- before a colon; "
                "write name:secret, and several separated by blanks"
            )
        if not _SECRET.fullmatch(secret):
            raise ValueError(
                f"the secret of entry {number} is not 16 or more printable ASCII characters; "
                "`openssl rand -hex 24` makes one"
            )
        digest = hashlib.sha256(secret.encode()).digest()
        if name in digests or digest in digests.values():
            raise ValueError(f"entry {number} has the name or the secret of an earlier one; give each its own")
        digests[name] = digest
    if not digests:
        raise ValueError("there is no key in it; write name:secret, or leave it empty for no log-in")
    return digests


def read_admins(text: str, names: Collection[str]) -> frozenset[str]:
    """Read names of keys, separated by blanks or commas.

    Raises:
        ValueError: an entry is not in `names`; the message gives its number only, since it may be a secret.
    """
    admins = _entries(text)
    for number, admin in enumerate(admins, start=1):
        if admin not in names:
            raise ValueError(f"entry {number} is not the name of a key")
    return frozenset(admins)


def _entries(text: str) -> list[str]:
    return [entry for entry in re.split(r"[\s,]+", text) if entry]


@dataclass(frozen=True, slots=True)
class ShareLimits:
    """What all callers together may have at once, and how much of it one of them.

    Attributes:
        bodies: recordings that one process receives.
        uploads: resumable and presigned uploads that are open.
        jobs: jobs that wait or run.
        streams: event streams of one process.
        part: of each of these, and of the disk's space for uploads, that one key may have.
        jobs_per_key: a smaller number of jobs for one key, if it is set.
    """

    bodies: int = 64
    uploads: int = 1000
    jobs: int = 1000
    streams: int = 500
    part: float = 1.0
    jobs_per_key: int | None = None

    @property
    def own_bodies(self) -> int:
        return self.share_of(self.bodies)

    @property
    def own_uploads(self) -> int:
        return self.share_of(self.uploads)

    @property
    def own_jobs(self) -> int:
        share = self.share_of(self.jobs)
        return share if self.jobs_per_key is None else min(share, self.jobs_per_key)

    @property
    def own_streams(self) -> int:
        return self.share_of(self.streams)

    def share_of(self, whole: int) -> int:
        """One key's part of a whole: at least 1, so that a small whole shuts no key out."""
        return max(1, int(whole * self.part))


@dataclass(frozen=True, slots=True)
class HeldUploads:
    """What open uploads hold: how many there are, what has arrived on the disk, and what is still to come there."""

    count: int = 0
    arrived_bytes: int = 0
    missing_bytes: int = 0

    @property
    def promised_bytes(self) -> int:
        """Their size once they are complete."""
        return self.arrived_bytes + self.missing_bytes

    def __add__(self, other: HeldUploads) -> HeldUploads:
        return HeldUploads(
            self.count + other.count,
            self.arrived_bytes + other.arrived_bytes,
            self.missing_bytes + other.missing_bytes,
        )
