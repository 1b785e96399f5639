"""The reckoning: every accepted upload found again, byte for byte; nothing without a row that verify does not find."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.torture.faults import flipped_bit
from benchmarks.torture.ledger import Outcome, Sent
from benchmarks.torture.rows import JobRow, ObjectRow, Rows
from benchmarks.torture.world import World

AT_ONCE = ("--grace", "0s", "--stale-after", "0s")
KINDS = {"audio", "transcript", "metadata"}
KEPT_PREFIXES = ("audio/", "metadata/", "transcripts/", "incoming/")


async def audit(world: World) -> None:
    """Let everything come to rest, look at everything, verify, repair, verify."""
    if not world.alive:
        await world.start()
    await world.settle()
    await world.stop()
    rows = await world.rows()
    stock = await Stock.of(world)
    world.tally.objects += len(rows.locators)
    for sent in world.sent:
        await _check_sent(world, sent, rows, stock)
    _check_rows(world, rows, stock)
    _check_deleted(world, rows, stock)
    await _check_repair(world, rows, stock)


class Stock:
    """What the stores have, by their own account.

    Attributes:
        sizes: locator → size of every object where recordings belong.
        spool: files of uploads and of recordings that wait.
        unfinished: locators of uploads in parts, as often as there are such uploads.
    """

    def __init__(self, sizes: dict[str, int], spool: set[str], unfinished: list[str]) -> None:
        self.sizes, self.spool, self.unfinished = sizes, spool, unfinished

    @classmethod
    async def of(cls, world: World) -> Stock:
        return await asyncio.to_thread(cls._read, world)

    @classmethod
    def _read(cls, world: World) -> Stock:
        root = world.disk.uploads
        files = [path for path in root.rglob("*") if path.is_file()]
        sizes = {
            str(path): path.stat().st_size for path in files if not path.relative_to(root).parts[0].startswith(".")
        }
        spool = {
            path.relative_to(root / ".spool").as_posix() for path in (root / ".spool").rglob("*") if path.is_file()
        }
        unfinished: list[str] = []
        if world.bucket:
            kept = {key: size for key, size in world.bucket.keys().items() if key.startswith(KEPT_PREFIXES)}
            sizes |= {f"s3://{world.bucket.name}/{key}": size for key, size in kept.items()}
            unfinished = [f"s3://{world.bucket.name}/{key}" for key in world.bucket.unfinished()]
        return cls(sizes, spool, unfinished)


async def _check_sent(world: World, sent: Sent, rows: Rows, stock: Stock) -> None:
    """An accepted upload is there and whole, or was deleted."""
    if sent.outcome != Outcome.ACCEPTED or sent.conversation_id is None:
        return
    if sent.deleting:
        return
    job, held = rows.jobs.get(sent.conversation_id), rows.objects.get(sent.conversation_id, [])
    audio = next((item for item in held if item.kind == "audio"), None)
    if audio is None and job is not None and _waits(world, job, sent, stock):
        return
    where = f"{sent.conversation_id}, sent during {sent.fault!r} and answered with {sent.status}"
    if audio is None or audio.locator not in stock.sizes:
        world.tally.complain("lost", f"{where}: {job} {audio}")
    elif audio.sha256 != sent.sha256 or await _sha256(world, audio) != sent.sha256:
        world.tally.complain("corrupt", f"{where}: {audio}")
    elif {item.kind for item in held} != KINDS and job is not None and job.status == "completed":
        world.tally.complain("lost", f"{where}: of its objects only {held} are left")


def _waits(world: World, job: JobRow, sent: Sent, stock: Stock) -> bool:
    """Whether the recording still waits in the spool, whole, for somebody to try it again."""
    if job.recording != job.id or f"kept/{job.id}" not in stock.spool:
        return False
    data = (world.disk.uploads / ".spool" / "kept" / job.id).read_bytes()
    return hashlib.sha256(data).hexdigest() == sent.sha256


async def _sha256(world: World, item: ObjectRow) -> str:
    read = world.bucket.read if item.store == "s3" and world.bucket else lambda locator: Path(locator).read_bytes()
    return hashlib.sha256(await asyncio.to_thread(read, item.locator)).hexdigest()


def _check_rows(world: World, rows: Rows, stock: Stock) -> None:
    for items in rows.objects.values():
        for item in items:
            if stock.sizes.get(item.locator) != item.size_bytes:
                world.tally.complain("rows_without_object", f"{item}: {stock.sizes.get(item.locator)}")


def _check_deleted(world: World, rows: Rows, stock: Stock) -> None:
    """What was deleted, by the server's own word, is gone and stays gone."""
    for sent in world.sent:
        name = sent.conversation_id
        if not sent.deleted or name is None:
            continue
        if name in rows.conversations:
            world.tally.complain("resurrected", f"{name} is there again")
        elif any(f"/{name}/" in locator for locator in stock.sizes):
            left = [locator for locator in stock.sizes if f"/{name}/" in locator]
            world.tally.complaints.append(f"note: after the delete of {name} there was {left}")


async def _check_repair(world: World, rows: Rows, stock: Stock) -> None:
    """Verify finds every orphan and one wrong bit, repair removes all orphans, and then nothing is wrong."""
    orphans = {locator for locator in stock.sizes if locator not in rows.locators}
    needed = {f"kept/{job.id}" for job in rows.jobs.values() if job.recording == job.id}
    orphans |= stock.spool - needed
    world.tally.orphans += len(orphans) + len(stock.unfinished)
    with _one_wrong_bit(world, rows, stock) as damaged:
        status, report = await world.aperta("storage", "verify", "--deep", *AT_ONCE)
    _compare(world, report, orphans, stock.unfinished, damaged)
    status, report = await world.aperta("storage", "repair", "--apply", *AT_ONCE)
    if status:
        world.tally.complain("orphans_left", f"repair ended with {status}: {_brief(report)}")
    status, report = await world.aperta("storage", "verify", *AT_ONCE)
    if status:
        world.tally.complain("orphans_left", f"verify after repair ended with {status}: {_brief(report)}")
    left = await Stock.of(world)
    rows = await world.rows()
    for locator in [*(left.sizes.keys() - rows.locators), *left.unfinished]:
        world.tally.complain("orphans_left", locator)


def _compare(world: World, report: Any, orphans: set[str], unfinished: list[str], damaged: str | None) -> None:
    found = Counter((item["kind"], item["locator"]) for item in report["findings"])
    for locator in orphans:
        if not _strike(found, ("orphan", locator), ("stale_spool_file", locator)) and not _was_swept(world, locator):
            world.tally.complain("orphans_missed", locator)
    for locator in unfinished:
        if not _strike(found, ("unfinished_upload", locator)):
            world.tally.complain("orphans_missed", f"unfinished upload of {locator}")
    if damaged:
        world.tally.flips += 1
        if not _strike(found, ("corrupt", damaged)):
            world.tally.complain("flips_missed", f"verify --deep passes over {damaged}: {_brief(report)}")
    for kind, locator in found.elements():
        world.tally.complaints.append(f"note: verify says {kind} of {locator}")


def _strike(found: Counter[tuple[str, str]], *wanted: tuple[str, str]) -> bool:
    """Take one of these from what was found; whether there was one."""
    for item in wanted:
        if found[item]:
            found[item] -= 1
            return True
    return False


def _was_swept(world: World, name: str) -> bool:
    """Whether it was an upload that nobody accepted, and that every start of storage clears away."""
    return name.endswith(".part") and not (world.disk.uploads / ".spool" / name).exists()


@contextlib.contextmanager
def _one_wrong_bit(world: World, rows: Rows, stock: Stock) -> Iterator[str | None]:
    """Flip one bit of a local file while verify looks; None where no file is local."""
    items = [
        item for held in rows.objects.values() for item in held if stock.sizes.get(item.locator) == item.size_bytes
    ]
    items = [item for item in items if item.store == "local" and item.size_bytes]
    if not items:
        yield None
        return
    item = world.random.choice(items)
    with flipped_bit(Path(item.locator), world.random.randrange(item.size_bytes)):
        yield item.locator


def _brief(report: Any) -> str:
    return str(report)[:1500]
