"""How boto3 is set up: credentials, timeouts, retries, checksums. boto3 is imported when a client is first opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from backend.errors import StorageMisconfigured
from backend.services.storage.config import StorageConfig
from backend.services.storage.stores.s3.errors import s3_errors

Checksums = Literal["when_required", "when_supported"]

MIB = 1024 * 1024
MULTIPART_THRESHOLD_BYTES = 16 * MIB
PARTS_AT_ONCE = 4
_MAX_PARTS = 9_000  # S3 allows 10,000


@dataclass(frozen=True, slots=True)
class S3Clients:
    """Boto3 clients on one session: a patient one for objects, a quick one for checks, and one that only signs links.

    boto3 ships no types; `Any` stays behind the S3 adapter.
    """

    objects: Any
    checks: Any
    links: Any

    def close(self) -> None:
        for client in (self.objects, self.checks, self.links):
            client.close()


def open_clients(config: StorageConfig) -> S3Clients:
    """Find credentials and build the clients. Blocks: loads boto3 and may ask the machine's role service.

    Raises:
        StorageMisconfigured: no or half credentials, an unknown profile, an endpoint that is no URL.
    """
    with _set_up_errors(config):
        session = _session(config)
        return S3Clients(
            objects=_client(session, config, config.s3_endpoint_url, attempts=3),
            checks=_client(session, config, config.s3_endpoint_url, attempts=2),
            links=_client(session, config, config.s3_public_endpoint_url or config.s3_endpoint_url, attempts=1),
        )


def open_client(config: StorageConfig, checksums: Checksums) -> Any:
    """Build one more client, with the SDK's own checksums or without. Errors as in `open_clients`."""
    with _set_up_errors(config):
        return _client(_session(config), config, config.s3_endpoint_url, attempts=1, checksums=checksums)


def checksums_of(config: StorageConfig) -> Checksums:
    """Say whether the SDK adds its own checksums.

    Other stores than AWS answer 411 or 501 to its default trailers; without them botocore signs the SHA-256 of the
    body, which such stores do verify.
    """
    return "when_required" if config.s3_endpoint_url else "when_supported"


def transfer_config(size_bytes: int, max_bytes_per_s: int = 0) -> Any:
    """Return how a file of this size is sent: in equal parts, few enough for S3's limit, some at once.

    Args:
        max_bytes_per_s: all parts together; 0: no limit.
    """
    from boto3.s3.transfer import TransferConfig

    part_bytes = max(16 * MIB, -(-size_bytes // _MAX_PARTS))
    return TransferConfig(
        multipart_threshold=MULTIPART_THRESHOLD_BYTES,
        multipart_chunksize=part_bytes,
        max_concurrency=min(PARTS_AT_ONCE, -(-size_bytes // part_bytes)),
        max_bandwidth=max_bytes_per_s or None,
    )


def _explicit_credentials(config: StorageConfig) -> dict[str, str]:
    key_id, secret, token = config.aws_access_key_id, config.aws_secret_access_key, config.aws_session_token
    if not key_id and not secret:
        return {}
    if not key_id or not secret:
        absent = "AWS_SECRET_ACCESS_KEY" if key_id else "AWS_ACCESS_KEY_ID"
        raise StorageMisconfigured(f"{absent} is not set, its other half is. Set both or neither.")
    credentials = {"aws_access_key_id": key_id, "aws_secret_access_key": secret.get_secret_value()}
    return credentials | ({"aws_session_token": token.get_secret_value()} if token else {})


@contextmanager
def _set_up_errors(config: StorageConfig) -> Iterator[None]:
    try:
        with s3_errors("open", config.s3_bucket_name or ""):
            yield
    except ValueError as error:
        raise StorageMisconfigured(
            f"S3 cannot be set up: {error}. Check S3_ENDPOINT_URL, S3_PUBLIC_ENDPOINT_URL and S3_REGION."
        ) from error


def _session(config: StorageConfig) -> Any:
    import boto3

    session = boto3.session.Session(**_explicit_credentials(config), region_name=config.s3_region)
    if session.get_credentials() is None:
        raise StorageMisconfigured(
            "No S3 credentials found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role."
        )
    return session


def _client(
    session: Any, config: StorageConfig, endpoint_url: str | None, attempts: int, checksums: Checksums | None = None
) -> Any:
    return session.client(
        "s3",
        region_name=session.region_name or "us-east-1",
        endpoint_url=endpoint_url,
        config=_boto_config(config, attempts, checksums or checksums_of(config)),
    )


def _boto_config(config: StorageConfig, attempts: int, checksums: Checksums) -> Any:
    from botocore.config import Config

    return Config(
        signature_version="s3v4",
        connect_timeout=config.s3_connect_timeout_s,
        read_timeout=config.s3_read_timeout_s,
        tcp_keepalive=True,
        # boto3's defaults block for minutes against a host that swallows packets; no other retries are stacked on top.
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=(config.s3_max_concurrency + config.drain_concurrency) * PARTS_AT_ONCE,
        s3={"addressing_style": _addressing_style(config)},
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
    )


def _addressing_style(config: StorageConfig) -> str:
    if config.s3_addressing_style == "auto" and config.s3_endpoint_url:
        return "path"
    return config.s3_addressing_style
