"""What the storage benchmarks have in common: where they measure, bare clients to compare with, and tables."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from backend.services.storage import StorageConfig
from benchmarks.report import table
from tests.support.fixtures_storage import s3_settings
from tests.support.servers import S3Server

MB, GB = 1_000_000, 1_000_000_000
BLOCK_BYTES = 1024 * 1024

Seconds = dict[str, list[float]]


@dataclass(frozen=True)
class Bench:
    """Where and how much.

    Attributes:
        folder: on the disk to measure.
        swift: the store.
        rounds: how often everything is measured.
        scale: of all sizes and counts.
    """

    folder: Path
    swift: S3Server
    rounds: int
    scale: float

    def bucket(self, name: str) -> str:
        """A bucket of that name, made if need be."""
        client = bare_client(self.swift)
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=f"bench-{name}")
        return f"bench-{name}"

    def s3(self, name: str, **changes: Any) -> StorageConfig:
        """A bucket with Aperta's own timeouts."""
        settings = s3_settings(self.swift, self.bucket(name), self.folder / name)
        del settings["s3_connect_timeout_s"], settings["s3_read_timeout_s"]
        return StorageConfig(_env_file=None, **(settings | changes))

    def local(self, name: str) -> StorageConfig:
        return StorageConfig(_env_file=None, upload_dir=str(self.folder / name), storage_backend="local")

    @contextlib.contextmanager
    def source(self, size: int) -> Iterator[Path]:
        """A file of random bytes."""
        path = self.folder / f"source-{size}"
        with path.open("wb") as file:
            for start in range(0, size, BLOCK_BYTES):
                file.write(os.urandom(min(BLOCK_BYTES, size - start)))
        try:
            yield path
        finally:
            path.unlink()


def take(seconds: Seconds, name: str, work: Callable[[], object]) -> None:
    """Do it, and note how long it took."""
    began = time.perf_counter()
    work()
    seconds.setdefault(name, []).append(time.perf_counter() - began)


def bare_client(server: S3Server) -> Any:
    """A client set up as Aperta's, with a connection for every thread."""
    return boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=Config(
            s3={"addressing_style": "path"},
            max_pool_connections=64,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


def bare_put(client: Any, bucket: str, key: str, data: bytes) -> None:
    client.put_object(Bucket=bucket, Key=key, Body=data)


def bare_save(client: Any, bucket: str, key: str, data: bytes) -> None:
    """The requests that a save of Aperta's makes: is the key free, the object, is it there as sent."""
    with contextlib.suppress(ClientError):
        client.head_object(Bucket=bucket, Key=key)
    client.put_object(Bucket=bucket, Key=key, Body=data)
    client.head_object(Bucket=bucket, Key=key)


def aws_copy(aws: str, server: S3Server, source: Path, bucket: str) -> None:
    """`aws s3 cp` of a file, its start included."""
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }
    command = (aws, "--endpoint-url", server.url, "s3", "cp", "--only-show-errors", str(source), f"s3://{bucket}/aws")
    subprocess.run(command, env=environment, check=True)


def rates(seconds: Mapping[str, Sequence[float]], amount: float, unit: str, base: str) -> str:
    """A table of amounts per second, and how each way compares with one of them."""
    of = statistics.median(seconds[base])
    rows = [
        (
            name,
            f"{amount / statistics.median(taken):.0f}",
            f"{amount / min(taken):.0f}",
            f"{100 * of / statistics.median(taken):.0f} %",
        )
        for name, taken in seconds.items()
    ]
    return table(("", f"{unit}/s, median", "best", f"of {base}"), rows)


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f}" if seconds >= 0.01 else f"{1000 * seconds:.1f}"
