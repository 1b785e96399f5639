"""Ceph's object store on loopback, from Debian's packages: one monitor, one manager, one store in memory, one gateway.

It answers what Swift does not: encryption headers, tags, conditional writes, bucket policies. And as version 16 it
refuses the SDK's default checksums over TLS, as several hosted stores do.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import http.client
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.servers import S3Server, free_port

PROGRAMS = ("ceph-mon", "ceph-mgr", "ceph-osd", "radosgw", "radosgw-admin", "ceph-authtool", "monmaptool")
PACKAGES = "ceph-mon ceph-mgr ceph-osd radosgw ceph-common"
MEMORY_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Ceph:
    """A running cluster: its gateway plain and with TLS, for the owner and for a user without rights of its own."""

    owner: S3Server
    stranger: S3Server
    tls: S3Server
    certificate: Path


def missing_programs() -> list[str]:
    """What must be installed before this can run."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextlib.contextmanager
def running_ceph(root: Path) -> Iterator[Ceph]:
    """Run a cluster below an empty folder, and stop it with everything in it."""
    cluster = _Cluster(root)
    with contextlib.ExitStack() as stack:
        stack.callback(cluster.stop)
        cluster.start()
        yield cluster.ceph()


class _Cluster:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._run = root / "run"
        self._port, self._tls_port = free_port(), free_port()
        self._monitor = f"[v2:127.0.0.1:{free_port()},v1:127.0.0.1:{free_port()}]"
        self._fsid = str(uuid4())
        self._keyring = root / "keyring"
        self._certificate = root / "certificate.pem"
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        for name in ("mon", "mgr", "osd", "log", "crash"):
            (self._run / name).mkdir(parents=True)
        _write_certificate(self._certificate, self._root / "gateway.pem")
        (self._root / "ceph.conf").write_text(self._config())
        self._make_keys()
        self._start_monitor()
        self._start_daemon("ceph-mgr", "-i", "x")
        self._start_store()
        self._start_daemon("radosgw", "-n", "client.gateway")
        self._wait_for_gateway()
        for name in ("owner", "stranger"):
            self._tool("radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}",
                       f"--access-key={name}", f"--secret-key={name}-secret")  # fmt: skip

    def stop(self) -> None:
        for daemon in self._daemons:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()

    def ceph(self) -> Ceph:
        def server(name: str, port: int, scheme: str = "http") -> S3Server:
            return S3Server("127.0.0.1", port, name, f"{name}-secret", scheme)

        return Ceph(
            server("owner", self._port),
            server("stranger", self._port),
            server("owner", self._tls_port, "https"),
            self._certificate,
        )

    def _config(self) -> str:
        """Small, quick, and with one copy of everything: nothing here is to be kept."""
        gateway = f"beast endpoint=127.0.0.1:{self._port} ssl_endpoint=127.0.0.1:{self._tls_port}"
        return f"""\
[global]
fsid = {self._fsid}
mon host = {self._monitor}
public addr = 127.0.0.1
keyring = {self._keyring}
run dir = {self._run}
crash dir = {self._run}/crash
admin socket = {self._run}/$name.asok
log file = {self._run}/log/$name.log
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail warn = 1
mon data avail crit = 1
[mon.a]
mon data = {self._run}/mon
[mgr.x]
mgr data = {self._run}/mgr
[osd.0]
osd data = {self._run}/osd
osd objectstore = memstore
memstore device bytes = {MEMORY_BYTES}
[client.gateway]
rgw frontends = {gateway} ssl_certificate={self._root}/gateway.pem
rgw dns name = localhost
rgw gc obj min wait = 1
rgw gc processor period = 5
"""

    def _make_keys(self) -> None:
        caps = {
            "mon.": ["mon", "allow *"],
            "client.admin": ["mon", "allow *", "osd", "allow *", "mgr", "allow *"],
            "client.gateway": ["mon", "allow rwx", "osd", "allow rwx", "mgr", "allow rw"],
            "mgr.x": ["mon", "allow profile mgr", "osd", "allow *"],
            "osd.0": ["mon", "allow profile osd", "osd", "allow *", "mgr", "allow profile osd"],
        }
        self._tool("ceph-authtool", "--create-keyring", str(self._keyring))
        for name, rights in caps.items():
            pairs = zip(rights[::2], rights[1::2], strict=True)
            options = [word for who, right in pairs for word in ("--cap", who, right)]
            self._tool("ceph-authtool", str(self._keyring), "--gen-key", "-n", name, *options)

    def _start_monitor(self) -> None:
        monmap = str(self._root / "monmap")
        self._tool("monmaptool", "--create", "--fsid", self._fsid, "--addv", "a", self._monitor, monmap)
        self._tool("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", str(self._keyring))
        self._start_daemon("ceph-mon", "-i", "a")

    def _start_store(self) -> None:
        store_id = str(uuid4())
        self._tool("ceph", "osd", "new", store_id, "0")
        self._tool("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", store_id)
        self._start_daemon("ceph-osd", "-i", "0")

    def _start_daemon(self, program: str, *arguments: str) -> None:
        with (self._run / "log" / f"{program}.out").open("wb") as out:
            command = [program, "-f", *arguments]
            self._daemons.append(
                subprocess.Popen(command, env=self._environment(), stdout=out, stderr=out, start_new_session=True)
            )

    def _tool(self, *command: str) -> None:
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}{self._logs()}")

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "CEPH_CONF": str(self._root / "ceph.conf")}

    def _wait_for_gateway(self, limit_s: float = 90) -> None:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and all(daemon.poll() is None for daemon in self._daemons):
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=2)
            try:
                connection.request("GET", "/")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                time.sleep(0.2)
            finally:
                connection.close()
        raise RuntimeError(f"Ceph did not start:\n{self._logs()}")

    def _logs(self) -> str:
        return "\n".join(f"{log.name}: {log.read_text()[-800:]}" for log in sorted((self._run / "log").iterdir()))


def allow_reading(client: object, bucket: str, user: str) -> None:
    """Let a user read and list a bucket that is not theirs, and nothing else."""
    allowed = {
        "Effect": "Allow",
        "Principal": {"AWS": [f"arn:aws:iam:::user/{user}"]},
        "Action": ["s3:ListBucket", "s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }
    policy = {"Version": "2012-10-17", "Statement": [allowed]}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))  # type: ignore[attr-defined]


def _write_certificate(certificate: Path, with_key: Path) -> None:
    """A certificate that vouches for itself: the client trusts it by AWS_CA_BUNDLE."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    certificate.write_bytes(signed)
    with_key.write_bytes(signed + secret)
