"""`aperta storage`: what an operator does with the stores."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from backend.cli.plainly import plain_errors
from backend.config import read_settings

if TYPE_CHECKING:
    from backend.services.storage.probe import ProbeReport

storage = typer.Typer(no_args_is_help=True, help="The stores that recordings are kept in.")


@storage.command("probe")
def probe_store(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Find out what the configured S3 endpoint can and cannot do. Status 1 if something that is needed fails."""
    from backend.services.storage.probe import probe

    with plain_errors():
        report = probe(read_settings().storage)
    if as_json:
        print(json.dumps({"usable": report.usable, **asdict(report)}, indent=2))
    else:
        _print_findings(report)
    if not report.usable:
        raise typer.Exit(1)


def _print_findings(report: ProbeReport) -> None:
    table = Table("", "works", "needed", "ms", "what was seen", box=None, pad_edge=False)
    for finding in report.findings:
        took = "" if finding.took_s is None else f"{finding.took_s * 1000:.0f}"
        table.add_row(finding.name, finding.verdict, "yes" if finding.needed else "", took, finding.detail)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(f"{report.endpoint or 'AWS'}, bucket {report.bucket}")
    console.print(table)
    console.print("Aperta can use it." if report.usable else "Aperta cannot use it as it is configured.")
