"""Counting for drift in the sync runtime, by a background thread in place of the workers' clock."""

import logging
import time

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.runtimes.sync.model_process import ModelProcesses, ProcessLost, TooLate
from shared.background import Background
from shared.config.settings import Settings
from shared.errors import GuichetError
from shared.faults import Fault
from shared.monitoring.counting import Counting, Rows
from shared.monitoring.drift.alerts import update_drift_alerts
from shared.scoring.outputs import Output
from shared.tables import JobKind

log = logging.getLogger(__name__)

RUN_SECONDS = 2.0  # of one run
PAUSE_SECONDS = 0.02  # after each thousand rows: requests come first
CHECK_SECONDS = 3600.0  # between two looks at the last day
PIECE_ROWS = 50  # of a reference that are scored at once: a request waits for so many at most
SCORE_SECONDS = 10.0  # for such a piece


class CountingThread:
    """Counts scored rows every `monitor_seconds`, and looks once an hour whether they have drifted."""

    def __init__(self, engine: Engine, models: ModelProcesses, settings: Settings) -> None:
        self._engine = engine
        self._models = models
        self._seconds = settings.monitor_seconds
        self._counting = Counting(engine, settings.models, settings.models_uri, self._score)
        self._thread = Background(self._run, name="counting")

    def start(self) -> None:
        """Start, unless the settings disable counting."""
        if self._seconds:
            self._thread.start()

    def stop(self) -> None:
        """Stop after the round that is being counted."""
        self._thread.stop()

    def _run(self) -> None:
        check_at = time.monotonic()
        while not self._thread.wait(self._seconds):
            try:
                self._counting.run(seconds=RUN_SECONDS, pause=PAUSE_SECONDS, is_stopping=self._is_stopping)
                if time.monotonic() >= check_at:
                    update_drift_alerts(self._engine)
                    check_at = time.monotonic() + CHECK_SECONDS
            except SQLAlchemyError as error:
                log.warning("scored rows could not be counted (%s); it is tried again", type(error).__name__)

    def _is_stopping(self) -> bool:
        return self._thread.is_stopping

    def _score(self, model_version_id: int, rows: Rows) -> list[Output | Fault] | None:
        """Score the rows of a reference in small pieces, between the requests; None while the model is not loaded."""
        model = self._models.find(model_version_id)
        if model is None:
            return None
        try:
            return [
                output
                for start in range(0, len(rows), PIECE_ROWS)
                for output in model.compute(JobKind.PREDICT, rows[start : start + PIECE_ROWS], SCORE_SECONDS)
            ]
        except (TooLate, ProcessLost, MemoryError, GuichetError) as error:
            log.warning("the reference rows of %s were not scored (%s)", model.label, type(error).__name__)
            return None
