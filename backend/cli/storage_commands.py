"""`aperta storage probe | verify | repair | rebuild | relocate | …`: reports for people, or as JSON for cron.

Exit status: 0 all is well, 1 something is wrong, 2 something could not be looked at.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from backend.cli import storage_reports as reports
from backend.cli.errors import plain_errors
from backend.cli.scope_options import Interrupted, ScopeUntil, duration_s, takes_scope
from backend.config import read_settings
from backend.services.reconciliation import PassProgress, ReportProgress

if TYPE_CHECKING:
    from backend.api.schemas.storage import DrainOut, EmptyingOut, RebuildOut, RepairOut, UsageOut, VerifyOut
    from backend.services.lifecycle.reports import DrainReport
    from backend.wiring.services import StorageTools

storage = typer.Typer(no_args_is_help=True, help="Check, repair and move what the stores hold.")

M = TypeVar("M", bound=BaseModel)
Work = Callable[["StorageTools", ReportProgress, Interrupted], Awaitable[tuple[M, int]]]

AsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]


@storage.command("probe")
def probe_store(as_json: AsJson = False) -> None:
    """Find out what the configured S3 endpoint can and cannot do. Status 1 if something that is needed fails."""
    from backend.services.storage.stores.s3.probe import probe_endpoint

    with plain_errors():
        report = probe_endpoint(read_settings().storage)
    if as_json:
        print(json.dumps({"usable": report.usable, **asdict(report)}, indent=2))
    else:
        reports.print_probe(report)
    if not report.usable:
        raise typer.Exit(1)


@storage.command("verify")
@takes_scope
def verify_storage(scope: ScopeUntil, as_json: AsJson = False) -> None:
    """Compare rows and stores both ways; change nothing. Status 1: something is wrong, 2: a store is silent."""
    from backend.api.schemas.storage import VerifyOut

    async def work(tools: StorageTools, report: ReportProgress, interrupted: Interrupted) -> tuple[VerifyOut, int]:
        found = await tools.reconciliation.verify(scope(interrupted), report)
        return VerifyOut.from_report(found), found.exit_code

    _end(*_run("verify", work), as_json, reports.print_verify)


@storage.command("repair")
@takes_scope
def repair_storage(
    scope: ScopeUntil,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it; without this option, only say what would be done.")
    ] = False,
    empty_quarantine: Annotated[
        bool,
        typer.Option("--empty-quarantine", help="Delete the objects in quarantine for good, instead of repairing."),
    ] = False,
    older_than: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="With --empty-quarantine: only objects that have been there at least this long."
        ),
    ] = "30d",
    as_json: AsJson = False,
) -> None:
    """Repair what verify finds, or say how. Nothing that may be a recording is deleted."""
    from backend.api.schemas.storage import EmptyingOut, RepairOut

    old_s = duration_s(older_than)

    async def empty(tools: StorageTools, _report: ReportProgress, _stop: Interrupted) -> tuple[EmptyingOut, int]:
        done = await tools.reconciliation.empty_quarantine(older_than_s=old_s, apply=apply)
        return EmptyingOut.from_report(done), done.exit_code

    async def work(tools: StorageTools, report: ReportProgress, interrupted: Interrupted) -> tuple[RepairOut, int]:
        done = await tools.reconciliation.repair(scope(interrupted), apply=apply, progress=report)
        return RepairOut.from_report(done), done.exit_code

    if empty_quarantine:
        _end(*_run("empty the quarantine", empty), as_json, reports.print_emptying)
    _end(*_run("repair", work), as_json, reports.print_repair)


@storage.command("rebuild")
def rebuild_database(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be written.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the rows of every conversation that has a manifest and no rows. Existing rows are left alone."""
    from backend.api.schemas.storage import RebuildOut

    async def work(tools: StorageTools, report: ReportProgress, _stop: Interrupted) -> tuple[RebuildOut, int]:
        done = await tools.reconciliation.rebuild(apply=not dry_run, progress=report)
        return RebuildOut.from_report(done), done.exit_code

    _end(*_run("rebuild", work), as_json, reports.print_rebuild)


@storage.command("relocate")
def relocate_objects(
    old: Annotated[str, typer.Argument(metavar="OLD", help="The folder as UPLOAD_DIR named it before.")],
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it; without this option, only say what would be done.")
    ] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read every object and compare its SHA-256, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Let the database follow a folder that was moved to UPLOAD_DIR. Status 1: objects are missing there."""
    from backend.api.schemas.storage import RelocationOut

    async def work(tools: StorageTools, _report: ReportProgress, _stop: Interrupted) -> tuple[RelocationOut, int]:
        done = await tools.reconciliation.relocate(old, deep=deep, apply=apply)
        return RelocationOut.from_report(done), done.exit_code

    _end(*_run("relocate", work), as_json, reports.print_relocation)


@storage.command("usage")
def show_usage(as_json: AsJson = False) -> None:
    """Count objects and bytes by store and kind."""
    from backend.api.schemas.storage import UsageOut

    async def work(tools: StorageTools, _report: ReportProgress, _stop: Interrupted) -> tuple[UsageOut, int]:
        usage = UsageOut.from_usage(await tools.reconciliation.usage(), await tools.drain.backlog())
        return usage, 2 if usage.unchecked else 0

    _end(*_run("usage", work), as_json, reports.print_usage)


@storage.command("drain")
def drain_storage(
    retry_parked: Annotated[bool, typer.Option("--retry-parked", help="Try the parked objects again, too.")] = False,
    concurrency: Annotated[int | None, typer.Option(min=1, max=64, help="Default: DRAIN_CONCURRENCY.")] = None,
    max_bytes_per_s: Annotated[
        int | None, typer.Option(min=0, help="Default: DRAIN_MAX_BYTES_PER_S; 0: no limit.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Move locally saved objects to S3, as servers do on their own. Status 1 if some are left."""
    from backend.api.schemas.storage import DrainOut

    async def work(tools: StorageTools, report: ReportProgress, _stop: Interrupted) -> tuple[DrainOut, int]:
        total = (await tools.drain.backlog()).objects

        def told(done: DrainReport) -> None:
            report(PassProgress("drain", done.moved, total))

        if retry_parked:
            await tools.drain.retry_parked()
        done = await tools.drain.drain_all(concurrency=concurrency, max_bytes_per_s=max_bytes_per_s, progress=told)
        left = await tools.drain.backlog()
        return DrainOut.from_report(done, left), 1 if left.objects or done.stopped else 0

    _end(*_run("drain", work), as_json, reports.print_drain)


def _run(name: str, work: Work[M]) -> tuple[M, int]:
    """Do the work on the configured stores and rows; after Ctrl-C it stops where a later run can continue."""

    async def run() -> tuple[M, int]:
        from backend.wiring.services import open_storage_tools

        interrupted = asyncio.Event()
        async with open_storage_tools(read_settings()) as tools:
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
            with _progress_bars(name) as report:
                return await work(tools, report, interrupted.is_set)

    with _failing_with(2), plain_errors():
        return asyncio.run(run())


def _end(report: M, status: int, as_json: bool, show: Callable[[M, Console], None]) -> NoReturn:
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        show(report, Console(width=None if sys.stdout.isatty() else 200, highlight=False, soft_wrap=True))
    raise typer.Exit(status)


@contextmanager
def _failing_with(status: int) -> Iterator[None]:
    """An error is no finding: cron must be able to tell them apart."""
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.code, str):
            raise
        print(error.code, file=sys.stderr)
        sys.exit(status)


@contextmanager
def _progress_bars(name: str) -> Iterator[ReportProgress]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def report(step: PassProgress) -> None:
            if step.phase not in tasks:
                tasks[step.phase] = bars.add_task(f"{name}: {step.phase}")
            bars.update(tasks[step.phase], completed=step.done, total=step.total)

        yield report
