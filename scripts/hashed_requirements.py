"""Print the pins of a constraints file as requirements with hashes, for `pip install --require-hashes --no-deps -r`.

    python scripts/hashed_requirements.py constraints.txt [server|dev]

Without a second word: every pin of the file. Knows the standard library alone, because it runs before anything is
installed.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Print the requirements for the file and the set on the command line."""
    path, *wanted = sys.argv[1:]
    sys.stdout.write(render(Path(path).read_text(), wanted[0] if wanted else None))


def render(constraints: str, wanted: str | None) -> str:
    """The lines of a requirements file.

    Args:
        constraints: as scripts/pin_hashes.py leaves them.
        wanted: server or dev; None: everything.

    Raises:
        ValueError: a pin that is wanted has no hash.
    """
    lines = []
    for pin, words in _pins(constraints):
        if wanted is not None and wanted not in words:
            continue
        hashes = [word for word in words if word.startswith("sha256:")]
        if not hashes:
            raise ValueError(f"{pin} has no hash: run `make constraints`.")
        lines.append(" \\\n".join([pin, *(f"    --hash={found}" for found in hashes)]))
    return "\n".join(lines) + "\n"


def _pins(constraints: str) -> list[tuple[str, list[str]]]:
    split = [line.partition("#") for line in constraints.splitlines() if line and not line.startswith("#")]
    return [(pin.strip(), comment.split()) for pin, _, comment in split]


if __name__ == "__main__":
    main()
