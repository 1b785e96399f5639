"""A process that runs jobs and serves no API."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence

from backend import __version__
from backend.config import Settings
from backend.wiring.services import Services, open_services

logger = logging.getLogger(__name__)


async def work(
    settings: Settings, queues: Sequence[str], *, drain_s: float, metrics_at: tuple[str, int] | None
) -> None:
    """Take work from queues until SIGTERM or SIGINT, then let running jobs end, or hand them back.

    Args:
        settings: the same database and storage as the servers'.
        queues: whose work to do.
        drain_s: how long running jobs may go on after the signal; a second signal ends that.
        metrics_at: address and port of `/metrics`; None: it is not served.

    Raises:
        AppError: it cannot start, and why.
    """
    stopped, hurried = asyncio.Event(), asyncio.Event()

    def stop() -> None:
        (hurried if stopped.is_set() else stopped).set()

    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop)
    async with open_services(settings, listen=queues) as services:
        with services.metrics.served(metrics_at):
            await _start(services, queues)
            await stopped.wait()
            logger.info("stopping: running jobs have %g s left, then they are handed back", drain_s)
            await services.runner.drain(drain_s, hurried)


async def _start(services: Services, queues: Sequence[str]) -> None:
    # Loaded first, so that waiting jobs are taken by workers that are ready.
    await services.speech.warm()
    await services.runner.start()
    logger.info("Aperta %s works on %s as %s", __version__, ", ".join(queues), services.runner.worker_id)
