"""`aperta models`: the speech models on this disk, and how more of them get here."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from backend.cli.errors import plain_errors
from backend.config import SpeechConfig, read_settings

models = typer.Typer(no_args_is_help=True, help="List and fetch speech models.")


@models.command("list")
def list_models() -> None:
    """List the models, and where those on this disk are."""
    from backend.engines.catalogue import list_models as find_models

    with plain_errors():
        found = find_models(read_settings().speech.models_dir)
    table = Table("model", "kind", "size", "licence", "where", box=None, pad_edge=False)
    for model in found:
        where = str(model.path) if model.path else f"not here; aperta models pull {model.name}"
        table.add_row(model.name, model.kind, f"{model.size_bytes / 1e6:.0f} MB", model.licence, where)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@models.command("pull")
def pull_model(
    name: Annotated[str, typer.Argument(help="A name from `aperta models list`; with --from, also one of your own.")],
    source: Annotated[
        str | None,
        typer.Option("--from", help="Take it from a directory, an archive, or the https address of one."),
    ] = None,
) -> None:
    """Fetch a model, or resume an interrupted download."""
    from backend.engines.fetching.pull import pull, pull_from

    with plain_errors():
        config = read_settings().speech
        path = pull_from(source, name, config.models_dir) if source else pull(name, config.models_dir, _token(config))
    print(f"{name} is in {path}")


def _token(config: SpeechConfig) -> str | None:
    return config.hf_token.get_secret_value() if config.hf_token else None
