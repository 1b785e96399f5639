"""The memory of decoders: what one may take, what all may take, and who waits."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from backend.engines.audio.memory import (
    MAX_DECODER_BYTES,
    MIB,
    MemoryBudget,
    decoder_memory_bytes,
    machine_memory_bytes,
    split_budget,
)

GIB = 1024 * MIB


class Cancelled(Exception):
    """What a caller's progress callback raises to stop the wait."""


def give_up(_fraction: float) -> None:
    raise Cancelled


def test_a_decoder_may_take_what_its_recording_can_need() -> None:
    assert decoder_memory_bytes(0) == 224 * MIB
    assert decoder_memory_bytes(10 * MIB) == 304 * MIB
    assert decoder_memory_bytes(2 * GIB) == MAX_DECODER_BYTES


@pytest.mark.parametrize(("machine_bytes", "together_bytes"), [(GIB, GIB // 2), (GIB // 4, MAX_DECODER_BYTES)])
def test_on_a_small_machine_probing_and_decoding_share_one_budget(machine_bytes: int, together_bytes: int) -> None:
    probing, decoding = split_budget(machine_bytes)
    assert probing is decoding and probing.total_bytes == together_bytes


def test_on_a_large_machine_an_upload_does_not_wait_for_decodings() -> None:
    probing, decoding = split_budget(8 * GIB)
    with decoding.hold(decoding.total_bytes), probing.hold(MAX_DECODER_BYTES, give_up):
        assert probing.total_bytes + decoding.total_bytes == 4 * GIB


def test_more_than_is_free_waits_until_it_is() -> None:
    budget, entered = MemoryBudget(100), threading.Event()

    def late() -> None:
        with budget.hold(50):
            entered.set()

    with budget.hold(60):
        waiting = threading.Thread(target=late)
        waiting.start()
        assert not entered.wait(0.4)
    waiting.join(5)
    assert entered.is_set()


def test_more_than_there_is_counts_as_all_there_is() -> None:
    budget = MemoryBudget(100)
    with budget.hold(1000), pytest.raises(Cancelled), budget.hold(1, give_up):
        pass
    with budget.hold(100, give_up):
        pass


def test_who_gives_up_waiting_lets_the_next_in() -> None:
    budget = MemoryBudget(100)
    with budget.hold(60):
        with pytest.raises(Cancelled), budget.hold(50, give_up):
            pass
        with budget.hold(40, give_up):
            pass


@pytest.mark.parametrize(
    ("own", "files", "limit_bytes"),
    [
        ("0::/pod/api\n", {"pod/memory.max": "1048576\n", "pod/api/memory.max": "max\n"}, MIB),
        ("0::/\n", {"memory.max": "2097152\n"}, 2 * MIB),
        ("9:cpu:/x\n4:memory:/docker/abc\n", {"memory/memory.limit_in_bytes": "3145728\n"}, 3 * MIB),
        ("4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("", {}, None),
    ],
    ids=["version 2, of a parent", "version 2, in a container", "version 1, in a container", "no limit", "none"],
)
def test_the_least_limit_of_all_control_groups_counts(
    tmp_path: Path, own: str, files: dict[str, str], limit_bytes: int | None
) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    found = machine_memory_bytes(tmp_path / "groups", tmp_path / "own")
    assert found == limit_bytes if limit_bytes else found > GIB // 2
