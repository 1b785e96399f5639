"""A bucket for one world, its back door, and the proxy that stands in front of it."""

from __future__ import annotations

from typing import Any

from tests.support.fixtures_storage import s3_client
from tests.support.servers import FaultProxy, S3Server


class Bucket:
    """A bucket behind a proxy that misbehaves, and the back door to it."""

    def __init__(self, server: S3Server, name: str) -> None:
        self.name = name
        self.proxy = FaultProxy(server)
        self.client: Any = s3_client(server)

    def open(self) -> None:
        self.client.create_bucket(Bucket=self.name)
        self.proxy.__enter__()

    def close(self) -> None:
        self.proxy.__exit__()
        self.client.close()

    def keys(self) -> dict[str, int]:
        """Every key and its size."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", ())}

    def unfinished(self) -> list[str]:
        """Keys of uploads in parts that were not finished."""
        listed = self.client.list_multipart_uploads(Bucket=self.name)
        return [item["Key"] for item in listed.get("Uploads", ())]

    def read(self, locator: str) -> bytes:
        key = locator.removeprefix(f"s3://{self.name}/")
        data: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return data
