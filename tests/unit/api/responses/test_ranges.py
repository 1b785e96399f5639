"""Which parts a request asks for, and whether the client has the present state."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from backend.api.responses.ranges import MAX_RANGES, NotSatisfiable, Validators, parse_ranges

VALIDATORS = Validators('"abc"', datetime(2026, 1, 15, 23, 30, 0, 500_000, tzinfo=UTC))
WRITTEN = "Thu, 15 Jan 2026 23:30:00 GMT"


@pytest.mark.parametrize(
    ("asked", "spans"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=3-", [(3, 10)]),
        ("bytes=3-99", [(3, 10)]),
        ("bytes=-4", [(6, 10)]),
        ("bytes=-99", [(0, 10)]),
        ("Bytes=0-1, 8-9,", [(0, 2), (8, 10)]),
        ("bytes=8-9,0-1", [(0, 2), (8, 10)]),
        ("bytes=0-5,3-7", [(0, 8)]),
        ("bytes=0-4,5-9", [(0, 10)]),
    ],
)
def test_ranges_are_sorted_and_merged(asked: str, spans: list[tuple[int, int]]) -> None:
    assert parse_ranges(asked, 10) == spans


@pytest.mark.parametrize("asked", ["", "bytes", "bytes=", "bytes=x-1", "bytes=5-3", "bytes=--1", "items=0-1"])
def test_a_malformed_range_is_ignored(asked: str) -> None:
    assert parse_ranges(asked, 10) is None


def test_more_ranges_than_are_reasonable_are_ignored() -> None:
    some = ",".join(f"{2 * number}-{2 * number}" for number in range(MAX_RANGES))
    assert len(parse_ranges(f"bytes={some}", 1000) or ()) == MAX_RANGES
    assert parse_ranges(f"bytes={some},999-", 1000) is None


@pytest.mark.parametrize(
    ("asked", "size"), [("bytes=10-", 10), ("bytes=0-1,10-", 10), ("bytes=-0", 10), ("bytes=0-", 0)]
)
def test_a_range_past_the_end_cannot_be_satisfied(asked: str, size: int) -> None:
    with pytest.raises(NotSatisfiable):
        parse_ranges(asked, size)


@pytest.mark.parametrize(
    ("headers", "known"),
    [
        ({}, False),
        ({"if-none-match": '"abc"'}, True),
        ({"if-none-match": '"x", W/"abc"'}, True),
        ({"if-none-match": "*"}, True),
        ({"if-none-match": '"x"'}, False),
        ({"if-none-match": '"x"', "if-modified-since": WRITTEN}, False),
        ({"if-modified-since": WRITTEN}, True),
        ({"if-modified-since": "Thu, 15 Jan 2026 23:29:59 GMT"}, False),
        ({"if-modified-since": "yesterday"}, False),
    ],
)
def test_the_client_has_the_present_state(headers: dict[str, str], known: bool) -> None:
    assert VALIDATORS.is_known(headers) is known


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"if-range": '"abc"'}, True),
        ({"if-range": WRITTEN}, True),
        ({"if-range": 'W/"abc"'}, False),
        ({"if-range": '"x"'}, False),
        ({"if-range": "Thu, 15 Jan 2026 23:30:01 GMT"}, False),
    ],
)
def test_a_range_of_another_state_is_not_given(headers: dict[str, str], allowed: bool) -> None:
    assert VALIDATORS.allow_ranges(headers) is allowed
