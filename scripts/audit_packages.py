"""Look up known vulnerabilities of the pinned packages: `make audit`. Skipped where no index of advisories answers."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from hashed_requirements import render

UNREACHABLE = (
    "ConnectionError",
    "ServiceError",
    "Max retries",
    "resolve",
    "timed out",
    "Timeout",
    "ProxyError",
    "SSLError",
)

UNKNOWN = "could not be audited"


def main() -> None:
    """Exit with 1 if a pinned package of the server has a known vulnerability."""
    pins = render(Path("constraints.txt").read_text(), "server")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(pins)
        requirements.flush()
        command = (sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "-r", requirements.name)
        done = subprocess.run(command, capture_output=True, text=True)
    silent = not done.stdout.strip() and any(sign in done.stderr for sign in UNREACHABLE)
    if silent or done.stdout.count(UNKNOWN) == pins.count("=="):
        print("Skipped: no index of advisories answers from here, so nothing is known about the pinned packages.")
        return
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
