"""Memory that inference has freed goes back to the system."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SCRIPT = """
import re, sys, threading
import numpy as np
from backend.engines.heap import return_large_blocks
if sys.argv[1] == "on":
    return_large_blocks()
kept = []
def work():
    for _ in range(20):
        large = [np.ones(10_000_000, np.uint8) for _ in range(12)]
        kept.append(np.ones(1000))
        del large
threads = [threading.Thread(target=work) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and sets glibc's malloc: needs Linux")
def test_large_blocks_are_given_back_after_use() -> None:
    done = subprocess.run((sys.executable, "-c", SCRIPT, "on"), cwd=ROOT, capture_output=True, text=True, check=True)
    resident_kb = int(re.findall(r"\d+", done.stdout)[0])
    assert resident_kb < 120_000
