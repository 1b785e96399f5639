"""Models from directories, archives and web servers."""

from __future__ import annotations

import re
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zipfile import ZipFile

import pytest

from backend.engines.fetching.elsewhere import bring
from backend.errors import EngineUnavailable, InvalidInput

FILES = {"config.json": b"{}", "tokenizer.json": b"[]", "vocabulary.txt": b"a", "model.bin": b"weights" * 50_000}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source" / "base"
    folder.mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    (folder / "README.md").write_text("no part of the model")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


class Server(ThreadingHTTPServer):
    """Serves a folder with ranges; notes the ranges asked for. `cut_at`: one answer ends after so many bytes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.ranges: list[str] = []
        self.cut_at: int | None = None
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        file = self.server.folder / self.path.lstrip("/")
        if not file.is_file():
            self.send_error(404)
            return
        data, start = file.read_bytes(), 0
        if asked := self.headers.get("Range"):
            self.server.ranges.append(asked)
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        cut, self.server.cut_at = (self.server.cut_at, None) if len(data) > 1000 else (None, self.server.cut_at)
        self.wfile.write(data[start:][:cut])
        self.close_connection = True

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server(source: Path) -> Iterator[Server]:
    with Server(source.parent) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def test_a_directory_is_copied_without_what_is_no_part_of_the_model(source: Path, tmp_path: Path) -> None:
    bring(str(source), ["whisper"], tmp_path / "base", {})
    assert contents(tmp_path / "base") == FILES


def test_a_zip_file_may_have_the_model_in_any_folder(source: Path, tmp_path: Path) -> None:
    with ZipFile(tmp_path / "models.zip", "w") as archive:
        for file in source.iterdir():
            archive.write(file, f"export/base/{file.name}")
        archive.writestr("export/another/deep/config.json", "{wrong}")
    bring(str(tmp_path / "models.zip"), ["whisper"], tmp_path / "base", {})
    assert contents(tmp_path / "base") == FILES


def test_a_tar_file_is_read_and_its_paths_are_not_followed(source: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "base.tar.gz", "w:gz") as archive:
        for file in source.iterdir():
            archive.add(file, f"../../{file.name}")
    bring(str(tmp_path / "base.tar.gz"), ["whisper"], tmp_path / "m" / "base", {})
    assert contents(tmp_path / "m" / "base") == FILES
    assert not (tmp_path / "model.bin").exists()


def test_a_directory_of_a_web_server_is_fetched_file_by_file(server: Server, tmp_path: Path) -> None:
    bring(f"{server.url}/base/", ["whisper"], tmp_path / "base", {})
    assert contents(tmp_path / "base") == FILES


def test_an_archive_of_a_web_server_is_fetched(server: Server, source: Path, tmp_path: Path) -> None:
    with ZipFile(server.folder / "base.zip", "w") as archive:
        for file in source.iterdir():
            archive.write(file, file.name)
    bring(f"{server.url}/base.zip", ["whisper"], tmp_path / "base", {})
    assert contents(tmp_path / "base") == FILES


def test_a_download_that_broke_off_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.cut_at = 100_000
    with pytest.raises(EngineUnavailable, match="Run the command again; it goes on from there"):
        bring(f"{server.url}/base", ["whisper"], tmp_path / "base", {})
    bring(f"{server.url}/base", ["whisper"], tmp_path / "base", {})
    assert contents(tmp_path / "base") == FILES
    assert "bytes=100000-" in server.ranges


def test_a_source_without_all_files_is_refused_with_their_names(source: Path, tmp_path: Path) -> None:
    (source / "tokenizer.json").unlink()
    with pytest.raises(EngineUnavailable, match=r"no complete model.*tokenizer\.json"):
        bring(str(source), ["whisper"], tmp_path / "base", {})


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="There is no directory or archive"):
        bring(str(tmp_path / "nowhere"), ["whisper"], tmp_path / "base", {})


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no archive")
    with pytest.raises(InvalidInput, match="no zip or tar archive"):
        bring(str(tmp_path / "notes.txt"), ["whisper"], tmp_path / "base", {})


@pytest.mark.parametrize("url", ["http://models.example.org/base", "ftp://example.org/base", "file:///etc"])
def test_an_address_without_tls_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="begins with https://"):
        bring(url, ["whisper"], tmp_path / "base", {})


def test_a_server_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"http://127\.0\.0\.1:9/base/config\.json cannot be fetched"):
        bring("http://127.0.0.1:9/base", ["whisper"], tmp_path / "base", {})
