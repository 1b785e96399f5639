"""Print a pin for every package of this environment but the project itself: `make constraints` keeps the result.

Local version labels (`2.13.0+cpu`) are cut off, since other machines install another build of the same version.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions

PROJECT = "aperta-server"
UNPINNED = {PROJECT, "pip"}


def main() -> None:
    """Print the pins, sorted by name, under a line that says what made them."""
    print(f"# Made by `{' '.join(sys.argv[1:])}`; do not edit.")
    for name, version in sorted(find_pins().items()):
        print(f"{name}=={version}")


def find_pins() -> dict[str, str]:
    """Return the version of every installed package by its normalised name."""
    installed = {re.sub(r"[-_.]+", "-", found.name).lower(): found.version for found in distributions()}
    return {name: version.partition("+")[0] for name, version in installed.items() if name not in UNPINNED}


if __name__ == "__main__":
    main()
