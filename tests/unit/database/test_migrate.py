"""Where the migrations are: inside the installed package or beside it in a checkout, and never in the library."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from backend.database.migrate import alembic_config
from backend.errors import MigrationsMissing


def make_scripts(folder: Path) -> Path:
    """A folder with the shape of Alembic's."""
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").touch()
    (folder / "versions" / "0001_first_tables.py").touch()
    return folder


@pytest.mark.parametrize("place", ["backend/migrations", "alembic"])
def test_migrations_are_found_in_a_wheel_and_in_a_checkout(tmp_path: Path, place: str) -> None:
    scripts = make_scripts(tmp_path / place)

    assert alembic_config(tmp_path / "backend").get_main_option("script_location") == str(scripts)


def test_installed_migrations_come_before_a_folder_beside_the_package(tmp_path: Path) -> None:
    make_scripts(tmp_path / "alembic")
    installed = make_scripts(tmp_path / "backend" / "migrations")

    assert alembic_config(tmp_path / "backend").get_main_option("script_location") == str(installed)


def test_a_percent_sign_in_the_folder_is_no_placeholder(tmp_path: Path) -> None:
    scripts = make_scripts(tmp_path / "100%(here)s" / "alembic")

    assert Path(ScriptDirectory.from_config(alembic_config(scripts.parent / "backend")).dir) == scripts


def test_the_library_of_the_same_name_is_not_taken_for_migrations(tmp_path: Path) -> None:
    library = tmp_path / "alembic"
    (library / "templates" / "generic").mkdir(parents=True)
    for name in ("__init__.py", "command.py", "templates/generic/env.py"):
        (library / name).touch()

    with pytest.raises(MigrationsMissing, match=r"backend/migrations nor .*/alembic holds them"):
        alembic_config(tmp_path / "backend")


def test_a_folder_without_versions_is_an_incomplete_installation(tmp_path: Path) -> None:
    make_scripts(tmp_path / "alembic").joinpath("versions", "0001_first_tables.py").unlink()

    with pytest.raises(MigrationsMissing, match="Install aperta-server again"):
        alembic_config(tmp_path / "backend")
