"""Storage under torture: servers are killed, disks fill and lose power, S3 and the database fail, round after round.

    python -m benchmarks.storage_torture --seed 1 --rounds 500

Every round breaks one thing while clients upload, read and delete. An upload counts as accepted when the server answers
200 or 202. After every few dozen rounds all faults are lifted, the server comes to rest, and then every accepted upload
must be there, byte for byte, with rows that say where; `aperta storage verify` must find every object that no row
names, `repair --apply` must put them out of the way, and a second verify must find nothing. Exit status 1 if anything
was lost.

`--no-fsync` runs the power losses alone, with fsync taken out of the server: the harness must then find losses.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import UNKNOWN, describe, machine, table
from benchmarks.torture.audit import audit
from benchmarks.torture.bucket import Bucket
from benchmarks.torture.databases import PostgresDatabase, SqliteDatabase, running_postgres
from benchmarks.torture.disk import Disk, Folder, can_mount
from benchmarks.torture.faults import FAULTS, Fault, possible, run_round
from benchmarks.torture.ledger import Tally
from benchmarks.torture.nursery import Nursery
from benchmarks.torture.world import World
from tests.support.servers import S3Server, running_swift, swift_venv

ROUNDS_PER_WORLD = 40
TOLD = 20


@dataclass(frozen=True)
class Plan:
    """One world: what it stores in and how many rounds it lives."""

    number: int
    store: str
    rounds: int


def main() -> None:
    options = parsed_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # disks are unmounted then, too
    print(f"{describe(machine())}; seed {options.seed}", flush=True)
    with scratch(options.folder) as folder, servers(options, folder) as running:
        began = time.monotonic()
        tallies = asyncio.run(torture(options, folder, running))
        seconds = time.monotonic() - began
    report(tallies, seconds)
    sys.exit(1 if any(tally.bad for tally in tallies.values()) else 0)


def parsed_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="decides what happens when (1)")
    parser.add_argument("--rounds", type=int, default=500, help="faults in all (500)")
    parser.add_argument("--stores", choices=("local", "swift", "both"), default="both", help="(both)")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite", help="(sqlite)")
    parser.add_argument("--no-fsync", action="store_true", help="power losses without fsync: must lose recordings")
    parser.add_argument("--worlds", type=int, default=3, help="servers at a time, each with its disk and bucket (3)")
    parser.add_argument("--rounds-per-world", type=int, default=ROUNDS_PER_WORLD, help="between two audits (40)")
    parser.add_argument("--only", help="only faults with this in their name")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for disks and logs")
    parser.add_argument("--keep", action="store_true", help="leave logs, disks and databases of worlds with losses")
    options = parser.parse_args()
    if options.no_fsync:
        options.stores, options.only = "local", "power loss"
    return options


@contextlib.contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="torture-", dir=parent))
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()
        if not any(folder.glob("world-*")):
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Running:
    """What all worlds share: a store, and the address of a PostgreSQL server, where they are wanted."""

    swift: S3Server | None
    postgres: str | None


@contextlib.contextmanager
def servers(options: argparse.Namespace, folder: Path) -> Iterator[Running]:
    shared = folder / "servers"
    shared.mkdir()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, shared, ignore_errors=True)
        swift = postgres = None
        if options.stores != "local":
            if (venv := swift_venv()) is None:
                sys.exit("OpenStack Swift is not installed: `make test-servers` does it, or use --stores local.")
            (shared / "swift").mkdir()
            swift = stack.enter_context(running_swift(venv, shared / "swift"))
        if options.database == "postgresql":
            postgres = stack.enter_context(running_postgres(shared))
        yield Running(swift, postgres)


async def torture(options: argparse.Namespace, folder: Path, running: Running) -> dict[str, Tally]:
    """All worlds, some at a time; what they counted, by store."""
    mountable = can_mount(folder)
    if not mountable:
        print("Without root there are no small disks: no power loss, no full and no read-only disk.")
    nursery, left = Nursery(), iter(plans(options))
    tallies: dict[str, Tally] = {}

    async def live() -> None:
        for plan in left:
            tally = await run_world(options, plan, folder, running, nursery, mountable)
            tallies.setdefault(plan.store, Tally()).add(tally)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(options.worlds):
                group.create_task(live())
    finally:
        nursery.close()
    return tallies


def plans(options: argparse.Namespace) -> Iterator[Plan]:
    """Worlds of equal length, the last one shorter; they alternate where both stores are wanted."""
    stores = {"both": ("swift", "local"), "swift": ("swift",), "local": ("local",)}[options.stores]
    left = options.rounds
    for number, store in zip(itertools.count(1), itertools.cycle(stores), strict=False):
        if left <= 0:
            return
        rounds = min(left, options.rounds_per_world)
        yield Plan(number, store, rounds)
        left -= rounds


async def run_world(
    options: argparse.Namespace, plan: Plan, folder: Path, running: Running, nursery: Nursery, mountable: bool
) -> Tally:
    """One world from its first start to its audit."""
    home = folder / f"world-{plan.number}"
    home.mkdir()
    seed = f"{options.seed}/{plan.number}"
    name = f"torture-{plan.number}"
    bucket = Bucket(running.swift, name) if running.swift and plan.store == "swift" else None
    disk = Disk(home) if mountable else Folder(home)
    database = (
        PostgresDatabase(running.postgres, f"torture_{plan.number}") if running.postgres else SqliteDatabase(disk.root)
    )
    world = World(home, disk, bucket, database, nursery, seed, fsync=not options.no_fsync)
    await world.open()
    begun = time.monotonic()
    try:
        for item in schedule(world, plan.rounds, options.only):
            await run_round(world, item)
        await audit(world)
    except Exception:
        world.tally.complain("broken", traceback.format_exc())
    finally:
        world.count()
        say(plan, world.tally, time.monotonic() - begun)
        keep = options.keep and world.tally.bad
        if keep:
            shutil.copytree(disk.root, home / "remains", dirs_exist_ok=True)
        await world.close()
        if not keep:
            shutil.rmtree(home)
    return world.tally


def schedule(world: World, rounds: int, only: str | None) -> list[Fault]:
    """Every fault in proportion to its weight, in random order."""
    chosen = [item for item in possible(world) if only is None or only in item.name]
    if not chosen:
        sys.exit(f"No fault is called {only!r} here; there are: {', '.join(item.name for item in FAULTS)}.")
    total = sum(item.weight for item in chosen)
    sure = [item for item in chosen for _ in range(rounds * item.weight // total)]
    rest = world.random.choices(chosen, [item.weight for item in chosen], k=rounds - len(sure))
    return random.Random(world.random.random()).sample([*sure, *rest], rounds)


def say(plan: Plan, tally: Tally, seconds: float) -> None:
    found = ", ".join(f"{count} {name}" for name, count in tally.bad.items()) or "nothing lost"
    print(
        f"world {plan.number} ({plan.store}): {tally.rounds} rounds in {seconds:.0f} s, {tally.kills} kills, "
        f"{tally.power_losses} power losses, {tally.accepted} accepted, {tally.orphans} orphans: {found}",
        flush=True,
    )
    for text in tally.complaints[:TOLD]:
        print(f"  {text}", flush=True)
    if len(tally.complaints) > TOLD:
        print(f"  and {len(tally.complaints) - TOLD} more", flush=True)


def report(tallies: dict[str, Tally], seconds: float) -> None:
    total = Tally()
    for tally in tallies.values():
        total.add(tally)
    shown = {**tallies, "all": total} if len(tallies) > 1 else tallies
    rows = [[name.replace("_", " "), *(_cell(tally, name) for tally in shown.values())] for name in SHOWN]
    print(f"\n{seconds:.0f} s; load average {os.getloadavg()[0]:.1f}\n")
    print(table(("", *shown), rows))
    print()
    print(
        table(("fault", "rounds", "accepted", "answers"), [_of_fault(total, name) for name in sorted(total.by_fault)])
    )
    deaths = ", ".join(f"{name} {count}" for name, count in total.deaths.most_common())
    print(f"\nServers that killed themselves at a point: {deaths or UNKNOWN}")


SHOWN = (
    "rounds",
    "kills",
    "power_losses",
    "accepted",
    "refused",
    "unknown",
    "deleted",
    "retried",
    "objects",
    "lost",
    "corrupt",
    "rows_without_object",
    "resurrected",
    "served_wrong",
    "stuck",
    "broken",
    "flips",
    "flips_missed",
    "orphans",
    "orphans_missed",
    "orphans_left",
    "starts_s",
    "recoveries_s",
)


def _of_fault(tally: Tally, name: str) -> tuple[object, ...]:
    answers = {status: count for (fault, status), count in sorted(tally.answers.items()) if fault == name}
    accepted = sum(answers.get(status, 0) for status in ("200", "202"))
    return name, tally.by_fault[name], accepted, ", ".join(f"{status}: {count}" for status, count in answers.items())


def _cell(tally: Tally, name: str) -> str:
    value = getattr(tally, name)
    if not isinstance(value, list):
        return f"{value}"
    return f"median {statistics.median(value):.1f}, most {max(value):.1f}" if value else UNKNOWN


if __name__ == "__main__":
    main()
