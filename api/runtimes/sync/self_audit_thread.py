"""The self-audit of the sync runtime: a background thread, and a process of its own for the versions that it asks.

It also knows which versions are suspended (shared/monitoring/suspensions.py), for whoever scores rows.
"""

import logging
from collections import OrderedDict

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.runtimes.sync.model_process import ModelProcess, ModelProcesses, ProcessLost, TooLate
from shared.background import Background
from shared.config.settings import Settings
from shared.database.engine import reader
from shared.errors import GuichetError
from shared.faults import Fault
from shared.monitoring.suspensions import list_suspended
from shared.rescoring.self_audit import ROUND_SECONDS, NotScored, Row, SelfAudit
from shared.scoring.outputs import Output
from shared.tables import JobKind

log = logging.getLogger(__name__)

AUDITORS = 2  # processes that are kept: each holds a model once more
SCORE_SECONDS = 30.0


class SelfAuditThread:
    """Looks every second which versions are suspended, and scores a share of what was stored again."""

    def __init__(self, engine: Engine, models: ModelProcesses, settings: Settings) -> None:
        self.suspended: frozenset[int] = frozenset()  # versions that only their pipeline may score
        self._engine = engine
        self._models = models
        self._is_auditing = settings.self_audit_share > 0
        self._audit = SelfAudit(
            engine,
            self._score,
            share=settings.self_audit_share,
            rows_per_second=settings.self_audit_rows_per_second,
        )
        self._auditors: OrderedDict[int, ModelProcess] = OrderedDict()  # by model version id, the last used at the end
        self._thread = Background(self._run, name="self-audit")

    def start(self) -> None:
        """Learn which versions are suspended before a row is scored, and begin."""
        try:
            self._learn()
        except SQLAlchemyError as error:
            log.warning("which versions are suspended could not be read (%s); it is tried again", type(error).__name__)
        self._thread.start()

    def stop(self) -> None:
        """Stop after the present round."""
        self._thread.stop()
        for process in list(self._auditors.values()):
            process.close()

    def _run(self) -> None:
        while not self._thread.wait(ROUND_SECONDS):
            try:
                self._learn()
                if self._is_auditing and (done := self._audit.check()) is not None:
                    # Before it is written: whoever reads of it is not given such a score any more.
                    self.suspended |= done.wrong_versions
                    self._audit.store(done)
            except SQLAlchemyError as error:
                log.warning("a round of the self-audit failed (%s); it is tried again", type(error).__name__)

    def _learn(self) -> None:
        with reader(self._engine).connect() as connection:
            self.suspended = frozenset(list_suspended(connection))

    def _score(self, model_version_id: int, rows: list[Row]) -> list[Output | Fault] | None:
        """Score rows by the pipeline, in a process that answers no request; None where the version is not loaded."""
        model = self._models.find(model_version_id)
        if model is None:
            return None
        auditor = self._auditors.pop(model_version_id, None) or model.twin()
        self._auditors[model_version_id] = auditor
        while len(self._auditors) > AUDITORS:
            self._auditors.popitem(last=False)[1].close()
        try:
            return auditor.compute(JobKind.PREDICT, rows, SCORE_SECONDS, by_pipeline=True)
        except (TooLate, ProcessLost, GuichetError) as error:
            raise NotScored from error
