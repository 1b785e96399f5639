"""How much of an installation one API key may use at once. Pure; knows no HTTP."""

from __future__ import annotations

from dataclasses import dataclass


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
