"""The distributions, built from the files of the checkout, and the wheel installed where no checkout is in sight."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.processes import ServerProcess, serving, wait_until_ready

SECONDS = 300


@dataclass(frozen=True, slots=True)
class Distributions:
    """`wheel` was built from `sdist`, as `make build` does it; `direct` from the checkout, as `pip install .` does."""

    sdist: Path
    wheel: Path
    direct: Path


@dataclass(frozen=True, slots=True)
class Installation:
    """The commands of an environment, run with an empty home, in a folder that is empty at first."""

    programs: Path
    folder: Path
    home: Path

    def command(self, program: str, *arguments: str) -> tuple[str, ...]:
        """A command that begins with no variables but these: no setting, and nothing that leads to the checkout."""
        variables = {"PATH": f"{self.programs}:{os.defpath}", "HOME": str(self.home), "LANG": "C.UTF-8", "PORT": "0"}
        assigned = [f"{name}={value}" for name, value in variables.items()]
        return ("env", "-i", *assigned, "ORT_DISABLE_TELEMETRY=1", str(self.programs / program), *arguments)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = self.command(program, *arguments)
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=SECONDS)

    @contextmanager
    def serving(self) -> Iterator[ServerProcess]:
        """`aperta serve` until the context ends, ready."""
        with serving(self.folder, self.command("aperta", "serve")) as server:
            wait_until_ready(server.url)
            yield server


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    folder = tmp_path_factory.mktemp("distributions")
    source = _copy_checkout(folder / "source")
    _build(source, folder / "dist")
    _build(source, folder / "direct", "--wheel")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    (direct,) = (folder / "direct").glob("*.whl")
    return Distributions(sdist, wheel, direct)


@pytest.fixture(scope="session")
def programs(distributions: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment that has the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    _run(sys.executable, "-m", "venv", str(folder))
    pip = (str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"))
    _run(*pip, str(distributions.wheel))
    return folder / "bin"


@pytest.fixture
def installation(programs: Path, tmp_path: Path) -> Installation:
    return new_installation(programs, tmp_path)


def new_installation(programs: Path, folder: Path) -> Installation:
    """The environment with a new folder and a new home, both empty."""
    places = folder / "empty", folder / "home"
    for place in places:
        place.mkdir()
    return Installation(programs, *places)


def tracked_files() -> list[str]:
    """The files that git has or would take, as they are in the working tree."""
    listed = _run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return sorted(name for name in listed if name and (ROOT / name).is_file())


def _copy_checkout(target: Path) -> Path:
    for name in tracked_files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target / name)
    return target


def _build(source: Path, target: Path, *options: str) -> None:
    _run(sys.executable, "-m", "build", *options, "--outdir", str(target), str(source))


def _run(*command: str) -> str:
    variables = {**os.environ, "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout
