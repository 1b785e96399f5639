"""The question by which Kubernetes finds out how many workers are needed, asked of a real database."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest
import yaml

from backend.database.migrate import migrate
from backend.services.jobs.checkpoints.database import prepare

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
ROLES = DEPLOY.parent / "postgresql" / "roles.sql"

JOB = """
INSERT INTO jobs (id, conversation_id, status, queue, priority, progress, attempt, crashes, owner, filename, size_bytes,
                  sha256, expected_s, options, created_at)
VALUES (%s, 'conv', %s, 'asr', 1, 0, 0, 0, '', 'a.wav', 1, '', %s, '{}', now())
"""


@pytest.mark.parametrize("folder", ["base", "gpu"])
def test_the_backlog_is_counted_in_seconds_of_sound_and_a_short_one_as_a_minute(postgres_url: str, folder: str) -> None:
    asyncio.run(migrate(postgres_url))
    prepare(postgres_url)
    documents = yaml.safe_load_all((DEPLOY / folder / "autoscaling.yaml").read_text())
    [query] = [item["spec"]["triggers"][0]["metadata"]["query"] for item in documents if item["kind"] == "ScaledObject"]
    with psycopg.connect(postgres_url) as connection:
        for number, (status, seconds) in enumerate(
            [("queued", 600.0), ("running", 5.0), ("queued", None), ("completed", 9000.0), ("failed", 9000.0)]
        ):
            connection.execute(JOB, (f"job_{folder}_{number}", status, seconds))
        connection.execute(ROLES.read_bytes())
        connection.execute("SET ROLE aperta_autoscaler")
        assert connection.execute(query).fetchone() == (600 + 60 + 60,)
