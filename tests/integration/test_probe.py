"""`aperta storage probe` on a real server: what it can do, what it cannot, and what stops Aperta from using it."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backend.errors import StorageMisconfigured
from backend.services.storage import StorageConfig
from backend.services.storage.stores.s3.probe import ProbeReport, probe
from tests.support.fixtures_storage import StorageConfigMaker
from tests.support.processes import environment
from tests.support.servers import FaultProxy, S3Server, free_port


def verdicts(report: ProbeReport) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in report.findings}


def details(report: ProbeReport) -> dict[str, str]:
    return {finding.name: finding.detail for finding in report.findings}


def test_a_good_store_is_usable_and_nothing_is_left_in_it(
    s3_server: S3Server, s3_config: StorageConfigMaker, raw_s3: Any, bucket: str
) -> None:
    report = probe(s3_config(s3_server))
    assert report.usable
    cannot = {name for name, verdict in verdicts(report).items() if verdict == "no"}
    assert cannot == {"encryption AES256", "encryption aws:kms", "versioning"}
    assert "NotImplemented" in details(report)["encryption AES256"]
    assert "Contents" not in raw_s3.list_objects_v2(Bucket=bucket, Prefix=".aperta-probe/")
    assert "Uploads" not in raw_s3.list_multipart_uploads(Bucket=bucket, Prefix=".aperta-probe/")


def test_what_is_configured_is_needed(s3_server: S3Server, s3_config: StorageConfigMaker) -> None:
    report = probe(s3_config(s3_server, s3_server_side_encryption="AES256"))
    assert not report.usable
    assert [f.name for f in report.findings if f.needed and f.verdict != "yes"] == ["encryption AES256"]


def test_a_wrong_secret_and_a_missing_bucket_are_told_apart(s3_server: S3Server, s3_config: StorageConfigMaker) -> None:
    wrong = probe(s3_config(s3_server, aws_secret_access_key="wrong"))
    assert (verdicts(wrong)["credentials"], verdicts(wrong)["put, head, get"]) == ("no", "untried")
    assert "AWS_SECRET_ACCESS_KEY" in details(wrong)["credentials"]
    missing = probe(s3_config(s3_server, s3_bucket_name="no-such-bucket"))
    assert (verdicts(missing)["credentials"], verdicts(missing)["bucket"]) == ("yes", "no")
    assert not wrong.usable and not missing.usable


def test_denied_writes_show_where_reading_works(s3_reader: S3Server, s3_config: StorageConfigMaker) -> None:
    report = probe(s3_config(s3_reader))
    assert (verdicts(report)["bucket"], verdicts(report)["put, head, get"]) == ("yes", "no")
    assert "AccessDenied" in details(report)["put, head, get"] and not report.usable


def test_clocks_that_differ_are_named(faulty: FaultProxy, s3_config: StorageConfigMaker) -> None:
    year = datetime.now(UTC).year
    faulty.rewrite = (f" {year} ".encode(), f" {year - 1} ".encode())
    report = probe(s3_config(faulty.server))
    assert verdicts(report)["clock"] == "no" and "off this machine" in details(report)["clock"]
    assert not report.usable


def test_nobody_listens(s3_config: StorageConfigMaker) -> None:
    report = probe(s3_config(S3Server("127.0.0.1", free_port())))
    assert not report.usable and verdicts(report)["credentials"] == "no"
    assert "Is the store up" in details(report)["credentials"]


def test_without_a_bucket_there_is_nothing_to_probe() -> None:
    with pytest.raises(StorageMisconfigured, match="S3_BUCKET_NAME"):
        probe(StorageConfig(_env_file=None))


def command(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "backend.cli", "storage", "probe", *arguments),
        cwd=folder,
        env=environment(folder, **settings),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_prints_a_table_or_json_and_ends_with_a_status(
    s3_server: S3Server, bucket: str, tmp_path: Path
) -> None:
    settings = {
        "S3_ENDPOINT_URL": s3_server.url,
        "S3_BUCKET_NAME": bucket,
        "S3_SERVER_SIDE_ENCRYPTION": "none",
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
    }
    table = command(tmp_path, **settings)
    assert table.returncode == 0, table.stderr
    assert "multipart upload" in table.stdout and "Aperta can use it." in table.stdout
    broken = command(tmp_path, "--json", **(settings | {"AWS_SECRET_ACCESS_KEY": "wrong"}))
    report = json.loads(broken.stdout)
    assert (broken.returncode, report["usable"], report["findings"][0]["verdict"]) == (1, False, "no")
    unset = command(tmp_path)
    assert unset.returncode == 1 and unset.stderr.startswith("aperta: S3_BUCKET_NAME is not set")
