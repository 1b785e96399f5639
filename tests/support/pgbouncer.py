"""A real PgBouncer on loopback, in front of a PostgreSQL."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import pytest
from sqlalchemy import URL, make_url

from tests.support.servers import free_port

CONFIGURATION = """
[databases]
* = host={host} port={server_port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {connections}
"""


@contextmanager
def pgbouncer(server: str, mode: Literal["session", "transaction"], *, connections: int = 40) -> Iterator[str]:
    """Run PgBouncer until the end of the block; gives the URL of the same database. Skips without the program.

    Args:
        server: the URL of a database behind a Unix socket.
        mode: what a client has a connection to the server for.
        connections: to the server.
    """
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("there is no pgbouncer: apt-get install pgbouncer")
    url, port = make_url(server), free_port()
    with TemporaryDirectory() as folder:
        file = Path(folder, "pgbouncer.ini")
        file.write_text(_configuration(url, port, mode, connections))
        Path(folder).chmod(0o755)
        process = subprocess.Popen([program, "-q", *_as_owner(str(url.query["host"])), file])
        try:
            _wait_until_it_listens(port, process)
            yield url.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)
        finally:
            process.terminate()
            process.wait(20)


def _configuration(url: URL, port: int, mode: str, connections: int) -> str:
    return CONFIGURATION.format(
        host=url.query["host"],
        server_port=url.port or 5432,
        user=url.username,
        port=port,
        mode=mode,
        connections=connections,
    )


def _as_owner(socket_folder: str) -> list[str]:
    """PgBouncer refuses to run as root, and only the server's own user may enter the folder of its socket."""
    return ["-u", Path(socket_folder).owner()] if os.geteuid() == 0 else []


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("pgbouncer does not listen")
