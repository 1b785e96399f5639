"""`aperta storage`: what an operator does with the stores."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from backend.cli.errors import plain_errors
from backend.config import read_settings

if TYPE_CHECKING:
    pass
from backend.cli.storage_reports import _print_findings

storage = typer.Typer(no_args_is_help=True, help="The stores that recordings are kept in.")


@storage.command("probe")
def probe_store(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Find out what the configured S3 endpoint can and cannot do. Status 1 if something that is needed fails."""
    from backend.services.storage.stores.s3.probe import probe

    with plain_errors():
        report = probe(read_settings().storage)
    if as_json:
        print(json.dumps({"usable": report.usable, **asdict(report)}, indent=2))
    else:
        _print_findings(report)
    if not report.usable:
        raise typer.Exit(1)
