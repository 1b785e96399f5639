"""The reports of `aperta storage …` as people read them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from backend.api.schemas.storage import (
        BacklogOut,
        DrainOut,
        EmptyingOut,
        RebuildOut,
        RelocationOut,
        RepairOut,
        UncheckedOut,
        UsageOut,
        VerifyOut,
    )
    from backend.services.storage.stores.s3.probe import ProbeReport

SHOWN = 50
"""How many findings are printed for people; JSON has more."""


def print_probe(report: ProbeReport) -> None:
    """What the endpoint can do, and whether that is enough."""
    table = Table("", "works", "needed", "ms", "what was seen", box=None, pad_edge=False)
    for finding in report.findings:
        took = "" if finding.took_s is None else f"{finding.took_s * 1000:.0f}"
        table.add_row(finding.name, finding.verdict, "yes" if finding.needed else "", took, finding.detail)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(f"{report.endpoint or 'AWS'}, bucket {report.bucket}")
    console.print(table)
    console.print("Aperta can use it." if report.usable else "Aperta cannot use it as it is configured.")


def print_verify(report: VerifyOut, console: Console) -> None:
    """What was compared, what is wrong, where to go on."""
    checked = report.checked
    hashed = f", {decimal(checked.hashed_bytes)} read" if report.deep else ""
    console.print(
        f"{_of(checked.rows, 'row')} and {_of(checked.objects, 'object')} compared{hashed} in {report.seconds:,.1f} s."
    )
    table = Table("what", "where", "why", box=None, pad_edge=False)
    for found in report.findings[:SHOWN]:
        table.add_row(found.kind, escape(found.locator), escape(found.detail))
    _print_table(table, sum(report.counts.values()), console)
    _print_unchecked(report.unchecked, console)
    console.print(
        _counted(report.counts) or ("Nothing is wrong." if not report.unchecked else "Nothing else is wrong.")
    )
    _print_cursor(report.cursor, console)


def print_repair(report: RepairOut, console: Console) -> None:
    """What was done about what."""
    table = Table("done" if report.applied else "to do", "about", "where", "why", box=None, pad_edge=False)
    for action in report.actions[:SHOWN]:
        why = f"{action.detail} {action.error or ''}".strip()
        table.add_row(action.kind, action.finding, escape(action.locator), escape(why))
    _print_table(table, sum(report.counts.values()), console)
    _print_unchecked(report.unchecked, console)
    console.print(_counted(report.counts) or "Nothing is to be repaired.")
    if report.counts and not report.applied:
        console.print("Nothing was changed; --apply does it.")
    if report.lost:
        console.print(f"{_of(report.lost, 'object')} without an intact copy: look for it in your backups.")
    _print_cursor(report.cursor, console)


def print_rebuild(report: RebuildOut, console: Console) -> None:
    """How many conversations came back, and what could not."""
    table = Table("not rebuilt", "why", box=None, pad_edge=False)
    for gap in report.gaps[:SHOWN]:
        table.add_row(escape(gap.subject), escape(gap.reason))
    _print_table(table, report.gap_count, console)
    _print_unchecked(report.unchecked, console)
    verb = "rebuilt" if report.applied else "would be rebuilt"
    console.print(f"{_of(report.manifests, 'manifest')}: {report.rebuilt:,} {verb}, {report.present:,} there already.")


def print_emptying(report: EmptyingOut, console: Console) -> None:
    """How much is gone for good."""
    _print_unchecked(report.unchecked, console)
    verb = "deleted" if report.applied else "would be deleted; --apply does it"
    console.print(f"{_of(report.objects, 'object')} ({decimal(report.bytes)}) in quarantine {verb}.")


def print_relocation(report: RelocationOut, console: Console) -> None:
    """Whether the rows follow the folder."""
    for absence in report.examples:
        console.print(Text(f"{absence.locator}: {absence.why}"))
    objects = f"{_of(report.objects, 'object')} ({decimal(report.bytes)})"
    if report.missing:
        console.print(
            f"{report.missing:,} of {objects} are not in {report.new} as they should be; nothing was changed."
        )
    elif report.applied:
        console.print(f"The rows of {objects} point to {report.new} now.")
    else:
        console.print(f"All {objects} are in {report.new}. Nothing was changed; --apply does it.")


def print_usage(report: UsageOut, console: Console) -> None:
    """Where the bytes are."""
    table = Table("where", "what", "objects", "size", box=None, pad_edge=False)
    for item in report.holdings:
        table.add_row(item.store, item.kind, f"{item.objects:,}", decimal(item.bytes))
    table.add_row("local", "spool", f"{report.spool.objects:,}", decimal(report.spool.bytes))
    for store, amount in report.quarantine.items():
        table.add_row(store, "quarantine", f"{amount.objects:,}", decimal(amount.bytes))
    console.print(table)
    _print_unchecked(report.unchecked, console)
    if report.lost:
        console.print(f"{_of(report.lost, 'object')} lost; `aperta storage verify` shows which.")
    _print_backlog(report.backlog, console)
    if report.free_bytes is not None:
        console.print(f"{decimal(report.free_bytes)} are free on the local disk.")


def print_drain(report: DrainOut, console: Console) -> None:
    """What moved, and what is left."""
    console.print(f"{_of(report.moved, 'object')} ({decimal(report.bytes)}) moved; {report.parked:,} cannot move.")
    if report.stopped:
        console.print(f"It stopped: {escape(report.stopped)}")
    _print_backlog(report.backlog, console)


def _print_backlog(backlog: BacklogOut, console: Console) -> None:
    if backlog.objects:
        console.print(
            f"On the local disk, to go to S3: {_of(backlog.objects, 'object')} ({decimal(backlog.bytes)}); "
            f"{backlog.parked:,} of them are parked."
        )


def _print_table(table: Table, found: int, console: Console) -> None:
    if not table.row_count:
        return
    console.print(table)
    if found > table.row_count:
        console.print(f"… and {found - table.row_count:,} more; --json shows a thousand.")


def _print_unchecked(unchecked: Sequence[UncheckedOut], console: Console) -> None:
    for item in unchecked:
        many = _of(item.objects, "object") if item.objects else "Objects"
        console.print(f"{many} in {item.store} could not be looked at: {escape(item.reason)}")


def _print_cursor(cursor: str | None, console: Console) -> None:
    if cursor is not None:
        console.print(f"This was a part. Go on with --cursor {shlex.quote(cursor)}", markup=False)


def _of(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {kind}" for kind, number in sorted(counts.items()))
