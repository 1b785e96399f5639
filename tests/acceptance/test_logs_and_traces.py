"""What a running server tells log and trace collectors, and what it keeps to itself."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import SAMPLE
from tests.support.processes import ServerProcess, serving, wait_until_ready

SECRETS = {"WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "HF_TOKEN": "hf_notToBeSeen"}
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@dataclass
class Collector:
    """A receiver of OTLP over HTTP."""

    url: str
    received: list[ExportTraceServiceRequest] = field(default_factory=list)

    def spans(self) -> dict[str, str]:
        """Name → trace id."""
        scopes = [scope for export in self.received for item in export.resource_spans for scope in item.scope_spans]
        return {span.name: span.trace_id.hex() for scope in scopes for span in scope.spans}

    def services(self) -> set[str]:
        resources = [item.resource for export in self.received for item in export.resource_spans]
        return {
            attribute.value.string_value
            for resource in resources
            for attribute in resource.attributes
            if attribute.key == "service.name"
        }


@contextmanager
def collecting() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/v1/traces":
                collector.received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Not to stderr."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Evidence:
    """What was left of a server that processed a recording and was stopped."""

    lines: list[dict[str, str]]
    collector: Collector
    transcript: str
    log: str


def process(server: ServerProcess) -> dict:
    headers = {"X-Request-ID": "upload-1", "traceparent": PARENT}
    with SAMPLE.open("rb") as file:
        answer = httpx.post(f"{server.url}/audio/process", files={"file": file}, headers=headers, timeout=300)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    folder = tmp_path_factory.mktemp("server")
    with collecting() as collector:
        settings = {"LOG_FORMAT": "json", "LOG_LEVEL": "debug", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **SECRETS}
        with serving(folder, **settings) as server:
            wait_until_ready(server.url)
            answer = process(server)
            httpx.get(f"{server.url}/conversations/conv_none?token=x")
    log = (folder / "server.log").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    return Evidence(lines, collector, answer["transcript"]["formatted_transcript"], log)


def test_every_line_is_an_object_that_says_when_who_and_what(evidence: Evidence) -> None:
    assert len(evidence.lines) > 3
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in evidence.lines)


def test_lines_about_a_request_carry_its_ids(evidence: Evidence) -> None:
    (access,) = [line for line in evidence.lines if "POST /audio/process" in line["message"]]

    assert (access["logger"], access["request_id"], access["trace_id"]) == ("uvicorn.access", "upload-1", TRACE)


def test_no_line_holds_what_was_said_or_a_secret(evidence: Evidence) -> None:
    said = [words for words in re.findall(r"\w+ \w+ \w+", evidence.transcript) if not words.startswith("Speaker")]

    assert len(said) > 10
    assert not [words for words in [*said, *SECRETS.values()] if words in evidence.log]


def test_requests_are_spans_of_the_callers_trace(evidence: Evidence) -> None:
    spans = evidence.collector.spans()

    assert spans["POST /audio/process"] == TRACE
    assert spans["GET /conversations/{conversation_id}"] != TRACE
    assert evidence.collector.services() == {"aperta"}


def test_a_job_is_a_span_and_so_is_each_of_its_stages(evidence: Evidence) -> None:
    spans = evidence.collector.spans()

    assert {spans[stage] for stage in ("decode", "diarize", "transcribe", "store")} == {spans["job"]}


def test_no_span_holds_what_was_said_or_a_secret(evidence: Evidence) -> None:
    exported = str(evidence.collector.received)
    said = re.findall(r"\w+ \w+ \w+", evidence.transcript)

    assert not [words for words in [*said, *SECRETS.values()] if words in exported]


def test_without_a_collector_nothing_is_set_up(tmp_path: Path) -> None:
    with serving(tmp_path, DIARIZATION_ENGINE="none") as server:
        answer = httpx.get(f"{server.url}/health/live", headers={"traceparent": PARENT})

    assert answer.status_code == 204
    assert "trace" not in (tmp_path / "server.log").read_text().lower()
