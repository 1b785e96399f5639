"""`aperta models`: the speech models on this disk, and how more of them get here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
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


@models.command("check")
def check_model(
    name: Annotated[str, typer.Argument(help="A model on this disk, or auto.")],
    recording: Annotated[Path, typer.Argument(help="An audio or video file.", exists=True, dir_okay=False)],
    reference: Annotated[
        Path | None,
        typer.Option(help="A text file with what is said, to count word errors.", exists=True, dir_okay=False),
    ] = None,
    language: Annotated[str | None, typer.Option(help="Spoken language, for example en; default: detect it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON.")] = False,
) -> None:
    """Measure a model on this machine: speed, memory, and word errors if you know what is said. Stores nothing."""
    from backend.domain.languages.codes import language_code
    from backend.engines.base import TranscribeOptions
    from backend.services.speech.check import measure
    from backend.services.speech.word_errors import count_word_errors
    from backend.wiring.engines import open_models

    with plain_errors():
        settings = read_settings()
        try:
            options = TranscribeOptions(language_code(language) if language else None, model=name)
        except ValueError as error:
            sys.exit(f"aperta: --language: {error}")
        models = open_models(settings.speech)
        found = measure(models, recording, options, max_s=settings.max_audio_seconds)
        errors = count_word_errors(reference.read_text(encoding="utf-8"), found.text) if reference else None
    facts: dict[str, object] = {
        "model": found.choice.model,
        "engine": found.engine,
        "language": found.choice.language,
        "audio_s": round(found.duration_s, 1),
        "load_s": round(found.load_s, 2),
        "transcribe_s": round(found.transcribe_s, 2),
        "times_real_time": round(found.times_real_time, 1),
        "peak_memory_mb": round(found.peak_bytes / 1e6),
    }
    if errors:
        facts |= {"words": errors.words, "word_errors": errors.errors, "wer_percent": round(errors.rate * 100, 1)}
    for warning in found.choice.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps(facts | {"text": found.text}, ensure_ascii=False))
        return
    print(found.text or "(no speech)")
    for fact, value in facts.items():
        print(f"{fact.replace('_', ' ')}: {value}", file=sys.stderr)


def _token(config: SpeechConfig) -> str | None:
    return config.hf_token.get_secret_value() if config.hf_token else None
