"""The `aperta` command."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import aiofiles
import typer
from pydantic import SecretStr, ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn

from backend import __version__
from backend.cli.errors import plain_errors
from backend.cli.keys import first_key
from backend.cli.models_commands import models
from backend.cli.storage_commands import storage
from backend.config import Settings, describe_invalid_settings, read_settings
from backend.errors import AppError
from backend.permissions import close_process
from backend.services.speech.values import Channels, StageProgress

if TYPE_CHECKING:
    from backend.api.schemas.audio import ProcessResponse

app = typer.Typer(no_args_is_help=True, help="Turn recordings into stored audio and transcripts of who said what.")
app.add_typer(models, name="models")
app.add_typer(storage, name="storage")

CHUNK_BYTES = 1024 * 1024


class Workers(StrEnum):
    """Where the jobs run that a server accepts."""

    EMBEDDED = "embedded"
    NONE = "none"


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"aperta {__version__}")
        raise typer.Exit
    close_process()


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default HOST or 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; default PORT or 8000.")] = None,
    workers: Annotated[
        Workers | None, typer.Option(help="embedded: process recordings here; none: leave that to `aperta worker`.")
    ] = None,
    auto_pull: Annotated[
        bool, typer.Option("--auto-pull", help="Unless MODELS_AUTO_PULL is set, fetch Whisper base in the background.")
    ] = False,
    make_key: Annotated[
        Path | None,
        typer.Option(help="Without API_KEYS, use the key in this file; if there is none, make one and print it."),
    ] = None,
) -> None:
    """Serve the API and the page."""
    from backend.main import serve as run_server

    with plain_errors():
        settings = read_settings()
        if make_key and settings.api_keys is None and not settings.allow_no_keys:
            settings = settings.model_copy(update={"api_keys": SecretStr(first_key(make_key))})
        if auto_pull and settings.speech.models_auto_pull is None:
            settings = settings.model_copy(
                update={"speech": settings.speech.model_copy(update={"models_auto_pull": True})}
            )
        asked = (("host", host), ("port", port), ("workers", workers and workers.value))
        run_server(settings.model_copy(update={name: value for name, value in asked if value is not None}))


@app.command()
def worker(
    queues: Annotated[str, typer.Option(help="Queues to take work from, separated by commas; default: all.")] = "",
    drain_s: Annotated[float, typer.Option(min=0, help="Seconds that running jobs may still take after SIGTERM.")] = 30,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve /metrics on this port; default: do not serve it.")
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(help="Address for it; 0.0.0.0 lets other machines read it, without a key.")
    ] = "127.0.0.1",
) -> None:
    """Process recordings that servers accept, on any machine that shares their database and storage."""
    from backend.services.jobs.runner import ALL_QUEUES
    from backend.worker import work

    chosen = [name.strip() for name in queues.split(",") if name.strip()] or list(ALL_QUEUES)
    if unknown := sorted(set(chosen) - set(ALL_QUEUES)):
        sys.exit(f"aperta: --queues: there is no {', '.join(unknown)}; there are {', '.join(ALL_QUEUES)}")
    with plain_errors():
        metrics_at = (metrics_host, metrics_port) if metrics_port else None
        asyncio.run(work(read_settings(), chosen, drain_s=drain_s, metrics_at=metrics_at))


@app.command()
def process(
    files: Annotated[
        list[Path], typer.Argument(help="Audio or video files.", exists=True, dir_okay=False, readable=True)
    ],
    language: Annotated[
        str | None, typer.Option(help="Spoken language, for example en or en-US; auto: detect it.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model that transcribes: a name from `aperta models list`, or auto.")
    ] = None,
    num_speakers: Annotated[int | None, typer.Option(min=1, help="Exactly this many speakers.")] = None,
    min_speakers: Annotated[int | None, typer.Option(min=1, help="At least this many speakers.")] = None,
    max_speakers: Annotated[int | None, typer.Option(min=1, help="At most this many speakers.")] = None,
    channels: Annotated[Channels, typer.Option(help="separate: each channel is a speaker.")] = Channels.MIX,
    audio_stream: Annotated[
        int | None, typer.Option(min=0, help="The only audio track to listen to, counted from 0.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="What the recording is about.")] = None,
    hotwords: Annotated[str | None, typer.Option(help="Rare words to expect, separated by spaces.")] = None,
    title: Annotated[str | None, typer.Option(help="A name for the conversation.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the API's answer as JSON, one line per file.")] = False,
) -> None:
    """Process recordings without a server, with the same storage and rows."""
    from backend.api.schemas.audio import ProcessForm

    given = {
        "language": language,
        "model": model,
        "num_speakers": num_speakers,
        "min_speakers": min_speakers,
        "max_speakers": max_speakers,
        "channels": channels.value,
        "audio_stream": audio_stream,
        "prompt": prompt,
        "hotwords": hotwords,
        "title": title,
    }
    try:
        form = ProcessForm.model_validate(given)
    except ValidationError as error:
        sentence = describe_invalid_settings(error, _option)
        sys.exit(f"aperta: {re.sub(r'[a-z]+_speakers', lambda name: _option(name[0]), sentence)}")
    with plain_errors():
        failed = asyncio.run(_process_all(read_settings(), files, form.model_dump(), as_json))
    if failed:
        raise typer.Exit(1)


@app.command()
def migrate() -> None:
    """Migrate the database to the newest schema."""
    from backend.database.migrate import migrate as run_migrations
    from backend.services.jobs.durable.database import prepare

    with plain_errors():
        url = read_settings().database_url
        done = asyncio.run(run_migrations(url))
        prepare(url)
    print("The database was migrated." if done else "The database is up to date.")


async def _process_all(settings: Settings, files: list[Path], form: dict[str, object], as_json: bool) -> int:
    """Process files one after the other; returns how many failed."""
    from backend.api.schemas.audio import ProcessForm, ProcessResponse
    from backend.services.jobs.intake import Submission
    from backend.services.uploads.sources import StreamedRecording
    from backend.wiring.services import open_services

    options = ProcessForm.model_validate(form).to_options()
    failed = 0
    async with open_services(settings, listen=()) as services:
        for path in files:
            try:
                with _progress_bar(path.name) as report:
                    how = Submission(here=True, report=report)
                    job = await services.intake.accept(StreamedRecording(_chunks(path), path.name), options, how)
                    done = await services.jobs.result(await services.jobs.wait(job.id))
            except (AppError, OSError) as error:
                failed += 1
                print(f"{path}: {getattr(error, 'strerror', None) or error}", file=sys.stderr)
                continue
            _print_result(ProcessResponse.from_result(*done), as_json)
    return failed


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    async with aiofiles.open(path, "rb") as file:
        while chunk := await file.read(CHUNK_BYTES):
            yield chunk


@contextmanager
def _progress_bar(name: str) -> Iterator[StageProgress]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, fraction: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(f"{name}: {stage}", total=1.0)
            bar.update(tasks[stage], completed=fraction)

        yield report


def _print_result(response: ProcessResponse, as_json: bool) -> None:
    for warning in response.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps(response.model_dump(mode="json"), ensure_ascii=False))
    else:
        print(response.transcript.formatted_transcript or "(no speech)")
        print(f"{response.message}: {response.audio_file_path}", file=sys.stderr)


def _option(name: str) -> str:
    """`num_speakers` → `--num-speakers`."""
    return f"--{name.replace('_', '-')}"
