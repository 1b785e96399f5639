"""The house and its map: unit tests mirror the backend, and the list of rooms in the documents is the real one."""

from __future__ import annotations

from pathlib import Path

from scripts.list_rooms import DOCUMENT, render_rooms, replace_rooms
from tests.conftest import ROOT

UNIT, BACKEND = ROOT / "tests" / "unit", ROOT / "backend"
MODULES_SIDE_BY_SIDE = 14
LINES = 400


def test_every_unit_test_has_the_path_of_its_module() -> None:
    strays = [path.relative_to(UNIT) for path in UNIT.rglob("test_*.py") if not _module_of(path).is_file()]
    assert not strays


def test_the_list_of_rooms_is_up_to_date() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    assert replace_rooms(document, render_rooms(BACKEND)) == document, "run `make rooms`"


def test_every_module_says_what_lives_in_it() -> None:
    silent = [path.relative_to(BACKEND) for path in BACKEND.rglob("*.py") if not path.read_text().startswith('"""')]
    assert not silent


def test_no_folder_has_too_many_modules_side_by_side() -> None:
    folders = {path.parent for path in BACKEND.rglob("*.py")}
    crowded = [folder for folder in folders if len([*folder.glob("[!_]*.py")]) > MODULES_SIDE_BY_SIDE]
    assert not crowded


def test_no_module_is_too_long() -> None:
    long = [path for path in BACKEND.rglob("*.py") if len(path.read_text().splitlines()) > LINES]
    assert not long


def _module_of(test: Path) -> Path:
    return BACKEND / test.relative_to(UNIT).with_name(test.name.removeprefix("test_"))
