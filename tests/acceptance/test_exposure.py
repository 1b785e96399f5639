"""Who reaches a server process: no strangers by accident, no other server's requests, a key from the first start."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import ROOT
from tests.support.processes import SERVE, WORK, ServerProcess, environment, serving, working
from tests.support.servers import free_port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("server"), WORKERS="none") as running:
        yield running


def exchange(server: ServerProcess, head: str) -> str:
    """Send the head of a request as it is; returns the first line of the answer."""
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        return connection.makefile("rb").readline().decode().strip()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /conversations HTTP/1.1\nHost: localhost", 200),
        ("GET /conversations HTTP/1.1\nHost: attacker.example", 421),
        ("GET /conversations HTTP/1.1", 400),
        ("GET /conversations HTTP/1.0", 400),
        ("GET /conversations HTTP/1.1\nHost:", 400),
        ("GET /conversations HTTP/1.1\nHost: localhost\nHost: localhost", 400),
        ("GET /conversations HTTP/1.1\nHost: localhost\nhost: attacker.example", 400),
        ("GET http://localhost/conversations HTTP/1.1\nHost: localhost", 200),
        ("GET http://attacker.example/conversations HTTP/1.1\nHost: localhost", 400),
        ("GET http://localhost/conversations HTTP/1.1\nHost: attacker.example", 400),
        ("GET http://attacker.example/conversations HTTP/1.1\nHost: attacker.example", 421),
        ("GET http://localhost@attacker.example/conversations HTTP/1.1\nHost: localhost", 400),
        ("GET http://attacker.example/conversations HTTP/1.1", 400),
    ],
)
def test_one_host_counts_and_it_must_be_ours(server: ServerProcess, head: str, status: int) -> None:
    assert exchange(server, head).split()[1] == str(status)


def refused(folder: Path, *arguments: str, **settings: str) -> str:
    """Start a server that must not start; returns what it said."""
    ended = subprocess.run(
        (*SERVE, *arguments),
        cwd=folder,
        env=environment(folder, **settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    return ended.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_without_keys_other_machines_are_not_served_by_accident(tmp_path: Path, host: str) -> None:
    said = refused(tmp_path, HOST=host)
    assert "API_KEYS" in said and "ALLOW_NO_KEYS" in said
    assert refused(tmp_path, "--host", host) == said


def test_the_first_start_makes_a_key_and_later_ones_use_it(tmp_path: Path) -> None:
    command, kept = (*SERVE, "--make-key", str(tmp_path / "api-key")), tmp_path / "api-key"
    with serving(tmp_path, command, WORKERS="none") as server:
        said = server.log.read_text()
        [secret] = re.findall(r"secret: (\S+)", said)
        assert httpx.get(f"{server.url}/conversations").status_code == 401
        assert httpx.get(f"{server.url}/conversations", auth=("admin", secret)).status_code == 200
    assert kept.stat().st_mode & 0o777 == 0o600 and kept.read_text() == f"admin:{secret}\n"
    with serving(tmp_path, command, WORKERS="none") as server:
        assert secret not in server.log.read_text()
        assert httpx.get(f"{server.url}/conversations", auth=("admin", secret)).status_code == 200


def test_no_key_is_made_where_there_are_some(tmp_path: Path) -> None:
    command, kept = (*SERVE, "--make-key", str(tmp_path / "api-key")), tmp_path / "api-key"
    with serving(tmp_path, command, WORKERS="none", API_KEYS="ada:correct-horse-battery") as server:
        assert httpx.get(f"{server.url}/conversations", auth=("ada", "correct-horse-battery")).status_code == 200
    assert not kept.exists()


def test_a_file_without_a_key_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text("")
    assert "api-key holds no key" in refused(tmp_path, "--make-key", str(tmp_path / "api-key"))


def test_the_image_and_the_compose_files_make_a_key() -> None:
    [command] = re.findall(r"^CMD (.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert "--make-key /data/api-key" in command
    assert "--make-key, /data/api-key" in (ROOT / "deploy" / "compose.yaml").read_text()


def test_metrics_of_a_worker_are_for_its_own_machine(tmp_path: Path) -> None:
    port = free_port()
    with working(tmp_path / "worker", (*WORK, "--metrics-port", str(port))) as worker:
        httpx.get(f"http://127.0.0.1:{port}/metrics").raise_for_status()
        listening = {item.laddr for item in psutil.Process(worker.process.pid).net_connections() if not item.raddr}
        assert listening == {("127.0.0.1", port)}


def test_a_server_that_may_go_without_keys_says_what_that_means(tmp_path: Path) -> None:
    apart = ["unshare", "--net", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("needs a network namespace: be root, or permit user namespaces")
    given = environment(tmp_path, HOST="0.0.0.0", ALLOW_NO_KEYS="true", WORKERS="none")
    with subprocess.Popen([*apart, *SERVE], cwd=tmp_path, env=given, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        try:
            said = [line for line in iter(server.stderr.readline, "") if "no keys" in line or _stops(server, line)]
        finally:
            server.kill()
    assert "ALLOW_NO_KEYS" in said[0]


def _stops(server: subprocess.Popen[str], line: str) -> bool:
    """Stop a server as soon as it has said its address."""
    if started := "on http://" in line:
        server.terminate()
    return started
