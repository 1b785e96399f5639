"""Add to every pin of a constraints file the hashes of its files, as comments: `make constraints` keeps the result.

    python scripts/pin_hashes.py constraints.txt

They are comments, because pip takes no editable install, and no package without a hash, beside constraints that carry
hashes; scripts/hashed_requirements.py makes requirements of them. The words before them say what needs the package:
`server`, `dev`, or nothing for what is installed by version alone. Asks the indexes that pip is configured with.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from pip._internal.commands import create_command
from pip._internal.index.collector import parse_links
from pip._internal.index.package_finder import PackageFinder
from pip._internal.models.link import Link
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

PROJECT = "aperta-server"
SETS = {"server": "", "dev": "dev"}
"""What is installed with hashes, and the extra that it comes from."""
BUILD = ("setuptools",)
"""Needed to install the project itself without asking an index for it."""
PLATFORM = re.compile(r"any|(many)?linux\w*_(x86_64|aarch64)")
INTERPRETER = re.compile(r"py3|py2\.py3|cp31[1-9]")


def main() -> None:
    """Rewrite the files that are named on the command line."""
    command = create_command("index")
    options, _ = command.parse_args(["versions", PROJECT])
    with command.main_context():
        finder = command._build_package_finder(options, command.get_default_session(options))
        for path in map(Path, sys.argv[1:]):
            lines = [*_render(path.read_text().splitlines(), finder)]
            path.write_text("\n".join(lines) + "\n")


def _render(lines: Sequence[str], finder: PackageFinder) -> Iterator[str]:
    sets = {name: closure(extra) for name, extra in SETS.items()}
    for line in lines:
        pin = line.partition("  #")[0].strip()
        if not pin or pin.startswith("#"):
            yield line
            continue
        name, _, version = pin.partition("==")
        needed_by = [title for title, names in sets.items() if name in names]
        yield f"{pin}  # {' '.join([*needed_by, *find_hashes(finder, name, version)])}"


def closure(extra: str) -> set[str]:
    """Every package of this environment that the project needs with an extra, or without one."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    own = [*project["dependencies"], *project["optional-dependencies"].get(extra, ())]
    known: set[tuple[str, str]] = set()
    waiting = [(name, "") for name in BUILD]
    waiting += _named(own, "")
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in known:
            continue
        known.add((name, wanted))
        waiting += _named(_requires(name), wanted)
    return {name for name, _ in known}


def _named(requirements: Sequence[str], extra: str) -> Iterator[tuple[str, str]]:
    """Names, each alone and with every extra that is asked for."""
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            for part in ("", *requirement.extras):
                yield canonicalize_name(requirement.name), part


def _requires(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []


def find_hashes(finder: PackageFinder, name: str, version: str) -> list[str]:
    """The hashes of the wheels of a version for Linux on x86-64 and ARM, or of its source where there is no wheel."""
    wheels, sources = set(), set()
    for place in finder.search_scope.get_index_urls_locations(name):
        page = None if place.startswith("file:") else finder._link_collector.fetch_response(Link(place))
        for link in parse_links(page) if page else ():
            if (digest := link._hashes.get("sha256")) and link.filename.endswith(".whl"):
                wheels |= {digest} if _is_ours(link.filename, version) else set()
            elif digest and _is_source(link.filename, version):
                sources.add(digest)
    return [f"sha256:{digest}" for digest in sorted(wheels or sources)]


def _is_ours(filename: str, version: str) -> bool:
    try:
        _, found, _, tags = parse_wheel_filename(filename)
    except ValueError:
        return False
    fits = any(PLATFORM.fullmatch(tag.platform) and _runs(tag.interpreter, tag.abi) for tag in tags)
    return str(found) == version and fits


def _runs(interpreter: str, abi: str) -> bool:
    if abi == "abi3":
        return re.fullmatch(r"cp3\d+", interpreter) is not None
    return INTERPRETER.fullmatch(interpreter) is not None and not abi.endswith("t")


def _is_source(filename: str, version: str) -> bool:
    try:
        return str(parse_sdist_filename(filename)[1]) == version
    except ValueError:
        return False


if __name__ == "__main__":
    main()
