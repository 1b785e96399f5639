"""The HTTP application and its server. `python backend/main.py` serves, as `aperta serve` does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

if __name__ == "__main__":
    # Run as a file, from any folder: the project is the working directory and the import root, as for `make run`.
    ROOT = Path(__file__).resolve().parents[1]
    os.chdir(ROOT)
    sys.path[0] = str(ROOT)

import anyio.to_thread
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from backend import __version__
from backend.api.middleware.access import add_access
from backend.api.middleware.body_limits import add_body_limits
from backend.api.middleware.connections import Connections, timed_protocol
from backend.api.middleware.descriptors import add_descriptor_guard, connection_limit, raise_descriptor_limit
from backend.api.middleware.own_address import add_own_address
from backend.api.middleware.request_ids import add_request_ids
from backend.api.middleware.response_headers import add_response_headers
from backend.api.problems import add_problem_handlers
from backend.api.routes import audio, conversations, health, jobs, models, pages, people, storage, uploads
from backend.api.routes import webhooks as deliveries
from backend.config import Settings, describe_invalid_settings, read_settings
from backend.domain.access.addresses import find_address, is_loopback
from backend.errors import AppError, InvalidInput
from backend.permissions import close_process
from backend.wiring.engines import first_model
from backend.wiring.services import Services, open_services

logger = logging.getLogger("backend.main")  # also when run as a file

DESCRIPTION = """\
A recording goes in; out come the stored audio, a transcript that says **who said what**, and rows that can be queried.

Try `POST /audio/process` with any recording; errors are problem details (RFC 9457).
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application. Nothing is opened before its lifespan starts.

    Args:
        settings: default: from the environment and `.env`.
    """
    settings = settings or Settings()
    app = FastAPI(
        title="Aperta",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # such a redirect would name the server that Host names
    )
    app.state.settings = settings
    add_problem_handlers(app)
    add_descriptor_guard(app)
    add_body_limits(app, settings)
    add_access(app, settings)
    add_own_address(app, settings)
    add_response_headers(app)
    add_request_ids(app)
    for routes in (pages, audio, models, conversations, jobs, deliveries, people, uploads, storage, health):
        app.include_router(routes.router)
    app.include_router(uploads.tus_router)
    app.include_router(health.metrics_router)
    pages.mount_assets(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """For servers that are handed `create_app`; `serve` opens the services itself, to say plainly what went wrong."""
    close_process()
    async with open_services(app.state.settings) as services, _running(app, services, lambda: None):
        yield


@asynccontextmanager
async def _running(app: FastAPI, services: Services, stop: Callable[[], None]) -> AsyncIterator[None]:
    """Give the app its services and load the models beside it; `stop` is called if they cannot be loaded."""
    app.state.services = services
    await _announce(services)
    await services.runner.start()

    first = first_model(app.state.settings.speech, services.speech.models)

    async def warm() -> None:
        if app.state.settings.workers == "none":
            return  # the models are the workers' business
        try:
            await services.speech.warm()
            logger.info("ready: the models are loaded")
            if first:
                first.start()
        except Exception as error:
            app.state.warm_error = error
            logger.critical("the models cannot be loaded: %s", error)
            stop()

    warming = asyncio.create_task(warm())
    try:
        yield
    finally:
        warming.cancel()
        await asyncio.gather(warming, return_exceptions=True)
        if first:
            await anyio.to_thread.run_sync(first.stop)


async def _announce(services: Services) -> None:
    info = await services.storage.get_info()
    engines = services.speech.engines
    logger.info("transcription: %s; diarization: %s", engines["transcription"], engines["diarization"])
    logger.info(
        "storage: %s (%s)%s", info.storage_type, info.place, f"; S3 is off: {info.reason}" if info.reason else ""
    )
    logger.info("database: %s", services.database.engine.url.render_as_string(hide_password=True))


def serve(settings: Settings) -> None:
    """Serve until stopped by a signal.

    Raises:
        AppError: it cannot start, and why.
        OSError: the address is taken or may not be used.
    """
    config = uvicorn.Config(
        create_app(settings),
        http=timed_protocol(_connections(settings)),
        ws="none",
        lifespan="off",
        log_config=None,
        server_header=False,
        proxy_headers=False,  # the app reads them itself, together with those that uvicorn leaves alone
        timeout_graceful_shutdown=30,
    )
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner, contextlib.suppress(KeyboardInterrupt):
        runner.run(_serve(settings, config))


def _connections(settings: Settings) -> Connections:
    most = connection_limit(settings.max_connections, raise_descriptor_limit(), settings.max_concurrent_uploads)
    return Connections(most, settings.max_connections_per_peer or max(1, most // 2), settings.upload_stall_timeout_s)


async def _serve(settings: Settings, config: uvicorn.Config) -> None:
    app = config.app
    assert isinstance(app, FastAPI)
    server = uvicorn.Server(config)

    def stop() -> None:
        server.should_exit = True

    # Bound first: a taken port is then known before models are loaded, and the log can name the port for PORT=0.
    with _listen(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        _check_exposure(settings, host)
        async with open_services(settings) as services, _running(app, services, stop):
            # Before uvicorn handles the signal, and after it has stopped: it raises the signal again then.
            signal.signal(signal.SIGTERM, lambda *_: stop())
            logger.info("Aperta %s on http://%s:%s (Swagger UI: /docs)", __version__, _in_url(host), port)
            await server.serve(sockets=[listener])
    if (error := getattr(app.state, "warm_error", None)) is not None:
        raise error


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}. Set HOST or PORT to a free one.") from error
    return listener


def _check_exposure(settings: Settings, host: str) -> None:
    """Raises InvalidInput if other machines can use this server without a key and the settings do not ask for that."""
    address = find_address(host)
    if settings.api_keys is not None or (address is not None and is_loopback(address)):
        return
    if not settings.allow_no_keys:
        raise InvalidInput(
            f"Other machines can reach {host}, and there are no keys: everybody could read and delete every recording. "
            "Set API_KEYS (name:secret), or ALLOW_NO_KEYS=true if that is meant, or HOST=127.0.0.1."
        )
    logger.warning("no keys: everybody who reaches %s can read and delete every recording (ALLOW_NO_KEYS)", host)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def run() -> None:
    """Serve with settings from the environment; a failed start ends the process with one sentence."""
    close_process()
    try:
        serve(read_settings())
    except (AppError, OSError) as error:
        sys.exit(f"Aperta cannot start: {error}")
    except ValidationError as error:
        sys.exit(f"Aperta cannot start: {describe_invalid_settings(error)}")


if __name__ == "__main__":
    run()
