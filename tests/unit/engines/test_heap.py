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


RELEASED = """
import re
import numpy as np
from backend.engines.heap import return_freed, return_large_blocks
def resident_kb():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])
return_large_blocks()
weights = [np.ones(1_000_000, np.uint8) for _ in range(200)]
kept = np.ones(1000)
freed, weights = weights[:-1], weights[-1:]
full = resident_kb()
del freed
return_freed()
print(full - resident_kb())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and uses glibc's malloc_trim: needs Linux")
def test_what_is_freed_below_blocks_in_use_is_given_back() -> None:
    done = subprocess.run((sys.executable, "-c", RELEASED), cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 150_000
