"""The outage story once more, on Ceph."""

from tests.integration.test_s3_faults import *  # noqa: F403
