"""The outage of STORAGE_GUIDE.md once more, on Ceph."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.test_storage_guide import place, test_an_outage_goes_as_the_guide_tells  # noqa: F401
from tests.support.ceph_server import Ceph
from tests.support.servers import FaultProxy, S3Server


class Gateway:
    """Ceph behind a proxy that refuses every connection while it is meant to be dead."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._proxy = proxy

    @property
    def server(self) -> S3Server:
        return self._proxy.server

    def kill(self) -> None:
        self._proxy.mode = "refuse"

    def start(self) -> None:
        self._proxy.mode = "pass"


@pytest.fixture(scope="module")
def store(ceph: Ceph) -> Iterator[Gateway]:
    with FaultProxy(ceph.owner) as proxy:
        yield Gateway(proxy)
