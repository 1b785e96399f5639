"""The lock of the decoder's process: a program in place of FFmpeg tries to get out, as root and as another user."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backend import REPORTS_OFF
from backend.engines.audio.confinement import Confinement, Measures
from backend.engines.audio.process import measure_confinement, run_decoder
from backend.errors import EngineUnavailable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement needs Linux")

USERS = [pytest.param(None, id="as it is"), pytest.param(10_001, id="unprivileged")]
REFUSED = ("Errno 1]", "Errno 13]", "Errno 24]")
"""Not permitted, denied, too many files: the lock's answers. Any other error means that the attempt misses its aim."""
OTHERWISE_REFUSED = {
    "call clone3": "Errno 38]",
    "write to the recording": "Errno 9]",
    "raise a limit": "not allowed to raise",
    "thread": "can't start new thread",
}
HARMLESS = ("read password file", "read neighbour", "look at a file", "connect", "fork", "thread", "signal the server")


class Prison:
    """A folder with a recording that attacks, a neighbour's file, and a server that listens."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.neighbour, self.recording = folder, folder / "aperta.db", folder / "upload.part"
        self.neighbour.write_text("rows")
        self.orders: dict[str, Any] = {"neighbour": str(self.neighbour), "port": port, "folder": str(folder)}

    def run(
        self, confinement: Confinement = Confinement.AUTO, *, user: int | None = None, only: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """Let it attack; the answers to its attempts, and facts about its process."""
        (self.folder / "modules" / "av" / "last.py").write_text(
            f"import os\nos.setresuid({user}, {user}, {user})\n" if user else ""
        )
        orders = {**self.orders, "recording": str(self.recording), "only": only}
        self.recording.write_bytes(b"fLaC" + json.dumps(orders).encode())
        for path in (self.recording, self.neighbour, self.folder):
            path.chmod(0o777)
        request = {"path": str(self.recording), "confinement": confinement, "max_samples": 16_000}
        limits = {"max_decoded_bytes": 10_000_000, "disk_reserve_bytes": 0, "max_memory_bytes": 2**29}
        with tempfile.TemporaryFile() as samples:
            return run_decoder({**request, **limits}, max_cpu_s=20, files=[samples])


@pytest.fixture
def prison(monkeypatch: pytest.MonkeyPatch) -> Iterator[Prison]:
    folder = Path(tempfile.mkdtemp())
    module = folder / "modules" / "av"
    module.mkdir(parents=True)
    (module / "__init__.py").write_text(
        "from tests.support.prisoner import *\nfrom tests.support.prisoner import open\n"
    )
    monkeypatch.syspath_prepend(folder / "modules")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield Prison(folder, server.getsockname()[1])
    finally:
        shutil.rmtree(folder)


def needs(user: int | None) -> None:
    if user is not None and os.geteuid() != 0:
        pytest.skip("only root can start a process as another user")


@pytest.mark.parametrize("user", USERS)
def test_every_attempt_to_get_out_is_refused(prison: Prison, user: int | None) -> None:
    needs(user)
    answers: dict[str, str] = prison.run(user=user)["answers"]
    expected = {name: (OTHERWISE_REFUSED[name],) if name in OTHERWISE_REFUSED else REFUSED for name in answers}
    out = {name: said for name, said in answers.items() if not any(mark in said for mark in expected[name])}
    assert out == {} and len(answers) > 80
    assert prison.neighbour.read_text() == "rows"
    assert sorted(path.name for path in prison.folder.iterdir()) == ["aperta.db", "modules", "upload.part"]


def test_what_is_refused_would_work_outside(prison: Prison) -> None:
    answers = prison.run(Confinement.OFF, only=HARMLESS)["answers"]
    assert answers == dict.fromkeys(HARMLESS, "done")


@pytest.mark.parametrize("user", USERS)
def test_it_inherits_neither_secrets_nor_descriptors(prison: Prison, user: int | None) -> None:
    needs(user)
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    try:
        facts = prison.run(user=user, only=("fork",))["facts"]
    finally:
        os.close(read_end)
        os.close(write_end)
    harmless = {"PATH", "PYTHONPATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", *REPORTS_OFF}
    assert set(facts["environment"]) <= harmless
    assert len(facts["descriptors"]) == 5  # its three, the recording, the samples
    assert facts["limits"]["RLIMIT_CORE"] == facts["limits"]["RLIMIT_NPROC"] == [0, 0]


def test_it_has_no_rights_left(prison: Prison) -> None:
    status = prison.run(only=("fork",))["facts"]["status"]
    if measure_confinement(Confinement.AUTO).landlock:
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        assert "0" not in status["Uid"].split()


def test_the_measures_that_hold_are_reported() -> None:
    measures = measure_confinement(Confinement.AUTO)
    assert measures.seccomp and measures.no_new_privs and measures.unprivileged
    assert measures.network in ("namespace", "seccomp")
    assert measure_confinement(Confinement.OFF) == Measures()


def test_what_is_required_and_missing_is_named() -> None:
    with pytest.raises(EngineUnavailable, match=r"lacks seccomp, Landlock or user namespaces\."):
        Measures(no_new_privs=True).check()
    Measures(landlock=1, seccomp=True, no_new_privs=True).check()
    Measures(user_namespace=True, seccomp=True, no_new_privs=True).check()
