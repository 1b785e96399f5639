"""How boto3 is set up: credentials, timeouts, retries, checksums. boto3 is imported when a client is first opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backend.errors import StorageMisconfigured
from backend.services.storage.config import StorageConfig
from backend.services.storage.s3_errors import s3_errors

MIB = 1024 * 1024
MULTIPART_THRESHOLD_BYTES = 16 * MIB
PARTS_AT_ONCE = 4
_MAX_PARTS = 9_000  # S3 allows 10,000


@dataclass(frozen=True, slots=True)
class S3Clients:
    """Two boto3 clients on one session: a patient one for objects and one that tries once, for checks.

    boto3 ships no types; `Any` stays behind the S3 adapter.
    """

    objects: Any
    checks: Any

    def close(self) -> None:
        self.objects.close()
        self.checks.close()


def open_clients(config: StorageConfig) -> S3Clients:
    """Find credentials and build the clients. Blocks: loads boto3 and may ask the machine's role service.

    Raises:
        StorageMisconfigured: no or half credentials, an unknown profile, an endpoint that is no URL.
    """
    import boto3

    with s3_errors("open", config.s3_bucket_name or ""):
        try:
            session = boto3.session.Session(**_explicit_credentials(config), region_name=config.s3_region)
            if session.get_credentials() is None:
                raise StorageMisconfigured(
                    "No S3 credentials found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role."
                )
            return S3Clients(_client(session, config, attempts=3), _client(session, config, attempts=1))
        except ValueError as error:
            raise StorageMisconfigured(f"S3 cannot be set up: {error}. Check S3_ENDPOINT_URL and S3_REGION.") from error


def transfer_config(size_bytes: int) -> Any:
    """Return how a file of this size is sent: in equal parts, few enough for S3's limit, some at once."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=MULTIPART_THRESHOLD_BYTES,
        multipart_chunksize=max(16 * MIB, -(-size_bytes // _MAX_PARTS)),
        max_concurrency=PARTS_AT_ONCE,
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


def _client(session: Any, config: StorageConfig, attempts: int) -> Any:
    return session.client(
        "s3",
        region_name=session.region_name or "us-east-1",
        endpoint_url=config.s3_endpoint_url,
        config=_boto_config(config, attempts),
    )


def _boto_config(config: StorageConfig, attempts: int) -> Any:
    from botocore.config import Config

    # Other stores than AWS answer 411 or 501 to the SDK's default checksum trailers; without them botocore signs the
    # SHA-256 of the body, which such stores do verify.
    checksums = "when_required" if config.s3_endpoint_url else "when_supported"
    return Config(
        signature_version="s3v4",
        connect_timeout=config.s3_connect_timeout_s,
        read_timeout=config.s3_read_timeout_s,
        tcp_keepalive=True,
        # boto3's defaults block for minutes against a host that swallows packets; no other retries are stacked on top.
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=config.s3_max_concurrency * PARTS_AT_ONCE,
        s3={"addressing_style": _addressing_style(config)},
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
    )


def _addressing_style(config: StorageConfig) -> str:
    if config.s3_addressing_style == "auto" and config.s3_endpoint_url:
        return "path"
    return config.s3_addressing_style
