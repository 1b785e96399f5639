"""The documents say what the code does: settings, defaults, routes, targets, paths and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings
from typer.core import TyperGroup
from typer.main import get_command

from backend.api.schemas.audio import ProcessForm
from backend.cli import app
from backend.config import Settings, SpeechConfig
from backend.main import create_app
from backend.services.storage import StorageConfig
from scripts.list_schedule import render_schedule, replace_schedule

PROJECT = Path(__file__).resolve().parents[2]
README = PROJECT / "README.md"
API = PROJECT / "docs" / "API.md"
CLI = PROJECT / "docs" / "CLI.md"
CONFIGURATION = PROJECT / "docs" / "CONFIGURATION.md"
GLOSSARY = PROJECT / "docs" / "GLOSSARY.md"
GUIDE = PROJECT / "STORAGE_GUIDE.md"
EXAMPLE = PROJECT / ".env.example"
DOCUMENTS = sorted(
    path
    for path in [
        *PROJECT.glob("*.md"),
        *PROJECT.glob("docs/**/*.md"),
        *PROJECT.glob("benchmarks/*.md"),
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
    field, shown = settings_fields()[name], configuration_table(CONFIGURATION).get(name)

    assert name in example_values(), f"{name} is not in .env.example"
    assert shown is not None, f"{name} is not in docs/CONFIGURATION.md"
    if field.default is None:
        assert (example_values()[name], shown) == ("", UNSET)
    else:
        assert parsed_default(field, example_values()[name]) == plain_default(field)
        assert parsed_default(field, shown.strip("`")) == plain_default(field)


def test_no_document_has_a_setting_that_does_not_exist() -> None:
    assert set(example_values()) == set(settings_fields())
    assert set(configuration_table(CONFIGURATION)) == set(settings_fields())


def test_the_storage_guide_has_every_storage_setting() -> None:
    storage = {name.upper() for name in StorageConfig.model_fields}

    assert set(configuration_table(GUIDE)) == storage
    assert configuration_table(GUIDE).items() <= configuration_table(CONFIGURATION).items()


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


def test_every_route_is_in_the_api_document() -> None:
    paths = create_app(Settings(_env_file=None)).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}

    described = set(re.findall(r"^\| `([A-Z]+ /[^` ]*)` \|", API.read_text(encoding="utf-8"), re.MULTILINE))

    assert described == routes


def test_the_readme_names_the_routes_to_begin_with() -> None:
    beginning, _, _ = README.read_text(encoding="utf-8").partition("## How good it is")

    for name in ("`POST /audio/process`", "`GET /audio/storage-info`", "Swagger UI", "http://127.0.0.1:8000/docs"):
        assert name in beginning


def test_the_table_of_periodic_work_is_up_to_date() -> None:
    text = (PROJECT / "docs" / "AUDIO_ARCHITECTURE.md").read_text(encoding="utf-8")

    assert replace_schedule(text, render_schedule()) == text, "run `make schedule`"


def test_every_form_field_is_in_the_api_document() -> None:
    text = API.read_text(encoding="utf-8")
    _, _, rest = text.partition("| field | meaning |\n")
    table, _, _ = rest.partition("\n\n")

    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == {"file", *ProcessForm.model_fields}


def test_every_command_is_in_the_command_line_document() -> None:
    rows = re.findall(r"^\| `aperta ([a-z]+(?: [a-z]+)?)", CLI.read_text(encoding="utf-8"), re.MULTILINE)

    assert set(rows) == set(commands(get_command(app)))


def commands(command: Any, *names: str) -> Iterator[str]:
    """Every command below this one, as it is typed."""
    if not isinstance(command, TyperGroup):
        yield " ".join(names)
        return
    for name, child in command.commands.items():
        yield from commands(child, *names, name)


def named_targets(document: Path) -> set[str]:
    return set(re.findall(r"(?:`|\$ |[A-Z]=\S+ )make ([a-z][a-z-]*)", document.read_text(encoding="utf-8")))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_every_make_target_exists(document: Path) -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))

    assert named_targets(document) <= targets


@pytest.mark.parametrize("document", [README, PROJECT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_targets_are_named(document: Path) -> None:
    assert named_targets(document)


def test_the_readme_leads_to_every_document() -> None:
    targets = {target.partition("#")[0] for target in _links(README.read_text(encoding="utf-8"))}

    assert {path.relative_to(PROJECT).as_posix() for path in PROJECT.glob("docs/*.md")} <= targets


def test_pictures_are_small() -> None:
    pictures = [*PROJECT.glob("docs/images/*")]

    assert pictures and all(path.stat().st_size < 300_000 for path in pictures)


def test_the_glossary_is_in_alphabetical_order() -> None:
    terms = re.findall(r"^\| \*\*(.+?)\*\*", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)

    assert terms == sorted(set(terms), key=str.casefold)


def test_the_glossary_leads_to_code() -> None:
    places = re.findall(r"^\| \*\*.+ \| (.+) \|$", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)
    paths = re.findall(r"`([^`]+)`", " ".join(places))

    assert len(paths) > len(places)
    assert [path for path in paths if not (PROJECT / "backend" / path).exists() and not (PROJECT / path).exists()] == []


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
