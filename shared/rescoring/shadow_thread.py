"""The thread that has challengers score: in one process of the workers that look after the others, or in the API."""

import logging

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.background import Background
from shared.config.settings import Settings
from shared.rescoring.shadow import Shadowing

PAUSE_SECONDS = 1.0  # between two rounds

log = logging.getLogger(__name__)


class ShadowThread:
    """Looks every second for what was decided of models that have a challenger."""

    def __init__(self, engine: Engine, settings: Settings, *, holder: str) -> None:
        self._shadowing = Shadowing(engine, settings, holder=holder)
        self._is_on = settings.shadow_rows_per_second > 0
        self._thread = Background(self._run, name="shadow")

    def start(self) -> None:
        """Begin, where challengers may score."""
        if self._is_on:
            self._thread.start()

    def stop(self) -> None:
        """Stop, and end the processes of challengers, also in the middle of a call."""
        self._shadowing.close()
        self._thread.stop()

    def _run(self) -> None:
        while not self._thread.wait(PAUSE_SECONDS):
            try:
                self._shadowing.run()
            except SQLAlchemyError as error:
                log.warning("a round of the challengers failed (%s); it is tried again", type(error).__name__)
