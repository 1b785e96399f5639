"""What the operator may say about storage: `StorageConfig`, read from the environment and `.env`. Opens nothing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

GIB = 1024**3


def _no_trickle(bytes_per_s: int) -> int:
    if 0 < bytes_per_s < 65_536:
        raise ValueError("use 0 for no limit, or at least 65536: stores hang up on slower senders")
    return bytes_per_s


class StorageConfig(BaseSettings):
    """Where recordings are kept. Each field is read from the environment variable of the same name in capitals.

    Nothing needs to be set: files then go to `./uploads`. A bucket name turns S3 on; credentials come from here or from
    boto3's ordinary chain (environment, profile, IAM role). An empty value counts as unset.
    """

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore")

    upload_dir: str = Field("./uploads", description="Folder of local objects and of the spool; kept as written")
    storage_backend: Literal["auto", "local", "s3"] = Field("auto", description="auto: S3 when a bucket is set")
    disk_soft_limit_bytes: int = Field(2 * GIB, ge=0, description="Less free space is warned of")
    disk_hard_limit_bytes: int = Field(GIB // 2, ge=0, description="With less free space uploads are refused")
    fallback: bool = Field(True, description="Save locally when S3 fails; off: the save fails instead")

    aws_access_key_id: str | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: SecretStr | None = None

    s3_bucket_name: str | None = None
    s3_region: str | None = Field(None, description="Default: what boto3 finds, else us-east-1")
    s3_endpoint_url: str | None = Field(None, description="S3-compatible stores other than AWS")
    s3_public_endpoint_url: str | None = Field(None, description="What clients call the store, if it is not the above")
    s3_addressing_style: Literal["auto", "path", "virtual"] = Field(
        "auto", description="auto: path with an endpoint URL"
    )
    s3_server_side_encryption: Literal["AES256", "aws:kms", "none"] = Field(
        "AES256", description="none for stores that refuse the header"
    )
    s3_max_concurrency: int = Field(8, ge=1, le=64, description="S3 calls at once; each has up to 4 parts in flight")
    s3_connect_timeout_s: float = Field(2, gt=0, le=3600)
    s3_read_timeout_s: float = Field(10, gt=0, le=3600)
    s3_save_timeout_s: float = Field(
        60, gt=0, le=86_400, description="For one small object within a request; as long again for each 60 MiB"
    )
    s3_retry_after_s: float = Field(
        30, gt=0, le=86_400, description="After a failure, saves go straight to local for this long"
    )
    s3_presigned_url_expires_s: int = Field(900, ge=1, le=604_800)

    drain_concurrency: int = Field(8, ge=1, le=64, description="Local objects on their way to S3 at once")
    drain_max_bytes_per_s: Annotated[int, AfterValidator(_no_trickle)] = Field(
        0, ge=0, description="What the drain of one process sends at most; 0: as much as it can"
    )

    @property
    def is_local_only(self) -> bool:
        """Whether local storage is what was asked for, so that nothing is missing without S3."""
        return self.storage_backend == "local"

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: object) -> object:
        # env_ignore_empty covers the environment; this covers keyword arguments and values of only spaces.
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if not isinstance(value, str) or value.strip()}
