"""Erasing old jobs in the sync runtime, by a background thread in place of the workers' clock."""

import logging

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.background import Background
from shared.config.settings import Settings
from shared.jobs.erasure import erase_old

log = logging.getLogger(__name__)

ROUND_SECONDS = 30.0  # between two runs
RUN_SECONDS = 2.0  # of one run


class RetentionThread:
    """Erases jobs that ended `job_days` ago."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._days = settings.job_days
        self._thread = Background(self._run, name="retention")

    def start(self) -> None:
        """Begin, unless jobs are kept for ever."""
        if self._days:
            self._thread.start()

    def stop(self) -> None:
        """Stop after the jobs that are being erased."""
        self._thread.stop()

    def _run(self) -> None:
        seconds = 0.0
        while not self._thread.wait(seconds):
            seconds = ROUND_SECONDS
            try:
                erase_old(self._engine, self._days, seconds=RUN_SECONDS, is_stopping=lambda: self._thread.is_stopping)
            except SQLAlchemyError as error:
                log.warning("old jobs could not be erased (%s); it is tried again", type(error).__name__)
