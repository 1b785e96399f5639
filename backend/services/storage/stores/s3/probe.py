"""What an S3 endpoint can do and what not, found out by trying. Leaves nothing behind. Blocks; for the command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from backend.errors import StorageError, StorageMisconfigured
from backend.services.storage.config import StorageConfig
from backend.services.storage.stores.s3.client import checksums_of, open_clients
from backend.services.storage.stores.s3.probe_checks import No, Tries

Verdict = Literal["yes", "no", "untried"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried.

    Attributes:
        needed: Aperta cannot do without it, as it is configured now.
        detail: what was seen, or what the store said.
        took_s: None if it was not tried.
    """

    name: str
    verdict: Verdict
    needed: bool
    detail: str
    took_s: float | None


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What an endpoint can do. `endpoint` is None for AWS."""

    endpoint: str | None
    bucket: str
    findings: tuple[Finding, ...]

    @property
    def usable(self) -> bool:
        """Everything that is needed works."""
        return all(finding.verdict == "yes" for finding in self.findings if finding.needed)


def probe(config: StorageConfig) -> ProbeReport:
    """Try everything on the configured bucket, below `.aperta-probe/`.

    Raises:
        StorageMisconfigured: no bucket, no credentials, or an endpoint that is no URL.
    """
    if not config.s3_bucket_name:
        raise StorageMisconfigured("S3_BUCKET_NAME is not set: there is no bucket to probe.")
    clients = open_clients(config)
    try:
        with Tries(config, clients) as tries:
            return ProbeReport(config.s3_endpoint_url, config.s3_bucket_name, tuple(_findings(config, tries)))
    finally:
        clients.close()


def _findings(config: StorageConfig, tries: Tries) -> Iterator[Finding]:
    """Try one after the other; without access to the bucket there is nothing to try."""
    credentials, bucket = (
        _try("credentials", tries.credentials, needed=True),
        _try("bucket", tries.bucket, needed=True),
    )
    yield from (credentials, bucket)
    reachable = bucket.verdict == "yes"
    encryption = config.s3_server_side_encryption
    mode = checksums_of(config)
    rest: list[tuple[str, Callable[[], str], bool]] = [
        ("latency", tries.latency, False),
        ("put, head, get", tries.put, True),
        ("delete", tries.delete, True),
        ("empty object", tries.empty, True),
        ("object metadata", tries.metadata, True),
        ("multipart upload", tries.multipart, True),
        ("abort of a multipart upload", tries.abort, True),
        ("presigned GET", tries.presigned_get, True),
        ("presigned PUT", tries.presigned_put, False),
        ("encryption AES256", lambda: tries.encryption("AES256"), encryption == "AES256"),
        ("encryption aws:kms", lambda: tries.encryption("aws:kms"), encryption == "aws:kms"),
        ("checksums when_required", lambda: tries.checksums("when_required"), mode == "when_required"),
        ("checksums when_supported", lambda: tries.checksums("when_supported"), mode == "when_supported"),
        ("refuses damaged bytes", tries.damaged, False),
        ("conditional PUT", tries.conditional, False),
        ("versioning", tries.versioning, False),
    ]
    for name, work, needed in rest:
        yield (
            _try(name, work, needed=needed) if reachable else Finding(name, "untried", needed, "needs the bucket", None)
        )
    # Last: every answer, also a refusal, has told the store's time.
    yield _try("clock", tries.clock, needed=True)


def _try(name: str, work: Callable[[], str], *, needed: bool) -> Finding:
    begun = time.perf_counter()
    verdict: Verdict = "no"
    try:
        detail = work()
        verdict = "yes"
    except (No, StorageError) as error:
        detail = str(error)
    return Finding(name, verdict, needed, detail, round(time.perf_counter() - begun, 4))
