"""What `pip install aperta-server` gives: the files of the wheel, and the service in an empty folder."""

from __future__ import annotations

import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend import __version__
from tests.conftest import ROOT, SAMPLE
from tests.support.processes import ServerProcess
from tests.wheel.conftest import SECONDS, Distributions, Installation, new_installation, tracked_files

INFO = f"aperta_server-{__version__}.dist-info"


@dataclass(frozen=True, slots=True)
class Served:
    """What a server answered, and what one that came after it, in the same folder, answered."""

    pages: dict[str, httpx.Response]
    processed: dict[str, Any]
    conversation: dict[str, Any]
    audio: bytes
    again: Installation


@pytest.fixture(scope="module")
def served(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Served:
    installation = new_installation(programs, tmp_path_factory.mktemp("served"))
    with installation.serving() as server:
        pages = _visit(server)
        processed = _process(server)
        server.process.kill()
        server.process.wait()
    with installation.serving() as server:
        address = f"{server.url}/conversations/{processed['conversation_id']}"
        conversation, audio = httpx.get(address).json(), httpx.get(f"{address}/audio").content
    return Served(pages, processed, conversation, audio, installation)


def _visit(server: ServerProcess) -> dict[str, httpx.Response]:
    """The page, Swagger UI, and everything they load; addresses of other servers stay whole."""
    pages = {path: httpx.get(f"{server.url}{path}") for path in ("/", "/docs", "/openapi.json")}
    loaded = re.findall(r'<(?:link|script)[^>]*? (?:href|src)="([^"]+)"', pages["/"].text + pages["/docs"].text)
    return pages | {path: httpx.get(httpx.URL(server.url).join(path)) for path in loaded}


def _process(server: ServerProcess) -> dict[str, Any]:
    with SAMPLE.open("rb") as file:
        answer = httpx.post(f"{server.url}/audio/process", files={"file": (SAMPLE.name, file)}, timeout=SECONDS)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_sdist_and_the_checkout_give_the_same_wheel(distributions: Distributions) -> None:
    assert contents(distributions.wheel) == contents(distributions.direct)


def test_the_wheel_holds_the_package_the_migrations_and_the_licences_alone(distributions: Distributions) -> None:
    code = {name for name in tracked_files() if name.startswith("backend/")}
    migrations = {f"backend/migrations{name.removeprefix('alembic')}" for name in tracked_files() if "alembic/" in name}
    metadata = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt"}
    licences = {"licenses/LICENSE", "licenses/NOTICE"}

    assert set(contents(distributions.wheel)) == code | migrations | {f"{INFO}/{name}" for name in metadata | licences}


def test_the_wheel_has_one_package_at_its_top(distributions: Distributions) -> None:
    assert contents(distributions.wheel)[f"{INFO}/top_level.txt"].split() == [b"backend"]


def test_the_service_is_imported_from_the_wheel_and_alembic_from_its_own(installation: Installation) -> None:
    done = installation.run(
        "python", "-c", "import alembic.command, backend; print(alembic.__path__, backend.__path__)"
    )

    packages = installation.programs.parent.resolve()
    assert done.stdout.count(f"{packages}/lib") == 2 and str(ROOT) not in done.stdout, done


def test_what_the_wheel_depends_on_fits_together(installation: Installation) -> None:
    assert installation.run("python", "-m", "pip", "check").stdout == "No broken requirements found.\n"


def test_the_command_knows_its_version(installation: Installation) -> None:
    assert installation.run("aperta", "--version").stdout == f"aperta {__version__}\n"


def test_a_new_database_is_migrated_once(installation: Installation) -> None:
    first, second = (installation.run("aperta", "migrate") for _ in range(2))

    assert (first.returncode, first.stdout) == (0, "The database was migrated.\n"), first
    assert (second.returncode, second.stdout) == (0, "The database is up to date.\n"), second


def test_the_command_processes_a_recording(installation: Installation) -> None:
    done = installation.run("aperta", "process", str(SAMPLE))

    assert done.returncode == 0 and "Speaker 3: " in done.stdout, done


def test_the_page_and_swagger_ui_come_with_everything_they_load(served: Served) -> None:
    missing = {path: page.status_code for path, page in served.pages.items() if page.status_code != 200}

    assert not missing and len(served.pages) > 7


def test_the_pages_load_nothing_from_elsewhere(served: Served) -> None:
    assert not [path for path in served.pages if "://" in path]


def test_an_upload_is_processed(served: Served) -> None:
    assert served.processed["transcript"]["speaker_count"] == 3


def test_a_conversation_outlives_a_killed_server(served: Served) -> None:
    assert served.conversation["status"] == "completed"
    assert served.conversation["transcript"] == served.processed["transcript"]


def test_a_recording_outlives_a_killed_server(served: Served) -> None:
    assert served.audio == SAMPLE.read_bytes()


def test_the_server_has_migrated_its_database_already(served: Served) -> None:
    assert served.again.run("aperta", "migrate").stdout == "The database is up to date.\n"


def test_an_installation_without_migrations_says_so(programs: Path, installation: Installation, tmp_path: Path) -> None:
    (packages,) = programs.parent.glob("lib/python3*/site-packages")
    shutil.copytree(packages / "backend", tmp_path / "empty" / "backend", ignore=shutil.ignore_patterns("migrations"))

    for command in ("migrate", "serve"):
        done = installation.run("python", "-m", "backend.cli", command)
        assert done.returncode == 1 and "This installation has no migrations" in done.stderr, done
