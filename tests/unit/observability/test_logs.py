"""Log lines: their ids travel with the context, and the JSON format is one object a line."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import anyio.to_thread
import pytest

from backend.observability.logs import LogFormat, log_context, log_handler


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(output: io.StringIO, request: pytest.FixtureRequest) -> Iterator[logging.Logger]:
    """A logger of its own that writes to `output`, as JSON unless the test asks for text."""
    handler = log_handler(getattr(request, "param", LogFormat.JSON))
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(output)
    logger = logging.getLogger(f"tests.logs.{id(output)}")
    logger.propagate = False
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield logger
    logger.removeHandler(handler)


def lines(output: io.StringIO) -> list[dict[str, str]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_a_line_says_when_who_and_what(log: logging.Logger, output: io.StringIO) -> None:
    log.info("saved %s\nto %s", "ä.wav", "disk")

    (line,) = lines(output)
    assert line.pop("logger") == log.name
    assert abs(datetime.now(UTC) - datetime.fromisoformat(line.pop("time"))) < timedelta(minutes=1)
    assert line == {"level": "INFO", "message": "saved ä.wav\nto disk"}


def test_lines_carry_the_ids_of_their_context(log: logging.Logger, output: io.StringIO) -> None:
    with log_context(request_id="r1"):
        with log_context(job_id="j1"):
            log.info("inside")
        log.info("between")
    log.info("outside")

    ids = [(line.get("request_id"), line.get("job_id")) for line in lines(output)]
    assert ids == [("r1", "j1"), ("r1", None), (None, None)]


@pytest.mark.anyio
async def test_ids_go_along_into_threads_and_tasks_and_do_not_mix(log: logging.Logger, output: io.StringIO) -> None:
    async def job(name: str) -> None:
        with log_context(job_id=name):
            await asyncio.sleep(0)
            await anyio.to_thread.run_sync(log.info, f"of {name}")

    await asyncio.gather(*(job(f"j{number}") for number in range(5)))

    assert sorted((line["job_id"], line["message"]) for line in lines(output)) == [
        (f"j{number}", f"of j{number}") for number in range(5)
    ]


def test_an_exception_is_part_of_its_line(log: logging.Logger, output: io.StringIO) -> None:
    try:
        raise ValueError("bad\nluck")
    except ValueError:
        log.exception("it broke")

    (line,) = lines(output)
    assert line["message"] == "it broke"
    assert line["exception"].endswith("ValueError: bad\nluck")


@pytest.mark.parametrize("log", [LogFormat.TEXT], indirect=True)
def test_text_lines_are_for_people(log: logging.Logger, output: io.StringIO) -> None:
    with log_context(request_id="r1"):
        log.warning("disk is %s", "full")

    assert output.getvalue().endswith(f"WARNING  {log.name}: disk is full\n")
