"""The documents say what the code does: settings, defaults, routes, targets, paths and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from backend.api.schemas.audio import ProcessForm
from backend.config import Settings, SpeechConfig
from backend.main import create_app
from backend.services.storage import StorageConfig
from scripts.list_schedule import render_schedule, replace_schedule

PROJECT = Path(__file__).resolve().parents[2]
README = PROJECT / "README.md"
GUIDE = PROJECT / "STORAGE_GUIDE.md"
EXAMPLE = PROJECT / ".env.example"
DOCUMENTS = sorted(
    path
    for path in [
        *PROJECT.glob("*.md"),
        *PROJECT.glob("docs/**/*.md"),
        *PROJECT.glob("samples/*.md"),
        *PROJECT.glob("deploy/*.md"),
    ]
)
NESTED = {"storage", "speech"}
UNSET = "\u2013"
"""What the tables show for a setting that has no default."""
FOLDERS = ("alembic", "backend", "benchmarks", "deploy", "docs", "samples", "scripts", "tests")


def settings_fields() -> dict[str, FieldInfo]:
    """Every setting under its name in the environment."""
    kinds: tuple[type[BaseSettings], ...] = (Settings, SpeechConfig, StorageConfig)
    return {name.upper(): field for kind in kinds for name, field in kind.model_fields.items() if name not in NESTED}


def example_values() -> dict[str, str]:
    """Name → value of the commented-out settings in .env.example."""
    return dict(re.findall(r"^#([A-Z][A-Z0-9_]*)=(.*)$", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE))


def configuration_table(path: Path) -> dict[str, str]:
    """Name → default in the table whose head is `name | default | meaning`."""
    _, _, rest = path.read_text(encoding="utf-8").partition("| name | default | meaning |\n")
    table, _, _ = rest.partition("\n\n")
    return dict(re.findall(r"^\| `([A-Z0-9_]+)` \| (.*?) \|", table, re.MULTILINE))


def parsed_default(field: FieldInfo, text: str) -> object:
    value: object = TypeAdapter(field.rebuild_annotation()).validate_python(text)
    return value.value if isinstance(value, Enum) else value


def plain_default(field: FieldInfo) -> object:
    return field.default.value if isinstance(field.default, Enum) else field.default


@pytest.mark.parametrize("name", settings_fields())
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    field, shown = settings_fields()[name], configuration_table(README).get(name)

    assert name in example_values(), f"{name} is not in .env.example"
    assert shown is not None, f"{name} is not in the README's configuration table"
    if field.default is None:
        assert (example_values()[name], shown) == ("", UNSET)
    else:
        assert parsed_default(field, example_values()[name]) == plain_default(field)
        assert parsed_default(field, shown.strip("`")) == plain_default(field)


def test_no_document_has_a_setting_that_does_not_exist() -> None:
    assert set(example_values()) == set(settings_fields())
    assert set(configuration_table(README)) == set(settings_fields())


def test_the_storage_guide_has_every_storage_setting() -> None:
    storage = {name.upper() for name in StorageConfig.model_fields}

    assert set(configuration_table(GUIDE)) == storage
    assert configuration_table(GUIDE).items() <= configuration_table(README).items()


def test_every_setting_of_the_example_has_a_comment_and_is_commented_out() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()

    assert all(not line or line.startswith("#") for line in lines)
    for number, line in enumerate(lines):
        if re.match(r"#[A-Z][A-Z0-9_]*=", line) and not line.startswith("#AWS_SECRET"):
            assert lines[number - 1].startswith("# "), f"{line} has no comment"


def test_an_untouched_example_is_a_valid_env_file(tmp_path: Path) -> None:
    copy = tmp_path / ".env"
    copy.write_text(re.sub(r"^#(?=[A-Z0-9_]+=)", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE))

    assert SpeechConfig(_env_file=copy) == SpeechConfig(_env_file=None)
    assert StorageConfig(_env_file=copy) == StorageConfig(_env_file=None)


def test_every_route_is_in_the_readme() -> None:
    paths = create_app(Settings(_env_file=None)).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}

    described = set(re.findall(r"^\| `([A-Z]+ /[^` ]*)` \|", README.read_text(encoding="utf-8"), re.MULTILINE))

    assert described == routes


def test_the_table_of_periodic_work_is_the_codes() -> None:
    text = (PROJECT / "docs" / "AUDIO_ARCHITECTURE.md").read_text(encoding="utf-8")

    assert replace_schedule(text, render_schedule()) == text, "run `make schedule`"


def test_every_form_field_is_in_the_readme() -> None:
    text = README.read_text(encoding="utf-8")
    _, _, rest = text.partition("| field | meaning |\n")
    table, _, _ = rest.partition("\n\n")

    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == {"file", *ProcessForm.model_fields}


@pytest.mark.parametrize("document", [README, PROJECT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_every_make_target_exists(document: Path) -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))

    named = set(re.findall(r"(?:`|\$ |[A-Z]=\S+ )make ([a-z][a-z-]*)", document.read_text(encoding="utf-8")))

    assert named, "no target is named"
    assert named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_links_and_paths_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")

    broken = [f"link to {target}" for target in _links(text) if not _link_works(document, target)]
    broken += [f"path {path}" for path in _paths(text) if not _path_exists(path)]

    assert not broken


def _links(text: str) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target and not target.startswith("mailto:"):
            yield target


def _link_works(document: Path, target: str) -> bool:
    name, _, anchor = target.partition("#")
    path = (document.parent / name).resolve() if name else document
    if not path.exists():
        return False
    return not anchor or anchor in {_anchor(heading) for heading in _headings(path)}


def _headings(path: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)


def _anchor(heading: str) -> str:
    """As GitHub makes it: lower case, blanks to hyphens, punctuation gone."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _paths(text: str) -> Iterator[str]:
    """Paths of the project in code font, such as `backend/config.py` or `tests/unit`."""
    for path in re.findall(r"`([\w.-]+(?:/[\w.{},*-]+)*/?)`", text):
        if path.startswith(tuple(f"{folder}/" for folder in FOLDERS)):
            yield path


def _path_exists(path: str) -> bool:
    return any(PROJECT.glob(path.rstrip("/")))
