"""A regular dry run of storing a submission, so that readiness reflects the database.

A read-only database answers every reading, and a table that is locked keeps only writers waiting: what reads cannot
tell. So a transaction takes the locks that a submission needs, and is rolled back.
"""

import logging
import time

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from shared.background import Background
from shared.database.engine import is_sqlite
from shared.reasons import Reason

log = logging.getLogger(__name__)

LOCK_SECONDS = 1.0  # how long a table may be locked by somebody before that is a reason
ANSWER_SECONDS = 3.0  # how long the database may be silent before that is one

SILENT = Reason("database_silent")
READ_ONLY = Reason("database_read_only")
LOCKED = Reason("database_locked")

# One message is one transaction, also where each statement is one otherwise (PostgreSQL manual, 55.2.2.1).
_TRY = (
    f"SET LOCAL lock_timeout = '{LOCK_SECONDS:g}s'; "
    "LOCK TABLE jobs, model_inputs IN ROW EXCLUSIVE MODE; "
    "SELECT current_setting('transaction_read_only') = 'on'"
)
_READ_ONLY_CODES = ("25006",)  # SQLSTATE: read-only transaction
_LOCKED_CODES = ("55P03", "57014")  # lock not available, query canceled


class Acceptance:
    """Tries in a thread of its own; answers from memory."""

    def __init__(self, engine: Engine, *, every: float) -> None:
        self._engine = engine
        self._every = every
        self._fault: str | None = None
        self._trying_since: float | None = None
        self._thread = Background(self._run, name="acceptance")

    def start(self) -> None:
        """Begin to try."""
        self._thread.start()

    def stop(self) -> None:
        """Stop trying; one that waits for the database is left behind."""
        self._thread.stop(1)

    def fault(self) -> str | None:
        """Return the reason why the database stores nothing now, None while it stores."""
        since = self._trying_since
        if since is not None and time.monotonic() - since > ANSWER_SECONDS:
            return self._fault or SILENT
        return self._fault

    def _run(self) -> None:
        while True:
            self._trying_since = time.monotonic()
            fault = self._try()
            self._trying_since = None
            if fault != self._fault:
                log.warning("submissions are refused: %s" if fault else "submissions are stored again%s", fault or "")
            self._fault = fault
            if self._thread.wait(self._every):
                return

    def _try(self) -> str | None:
        try:
            is_read_only = False
            with self._engine.connect() as connection:
                if is_sqlite(self._engine):  # a transaction begins with the lock of a writer
                    connection.exec_driver_sql("UPDATE jobs SET attempt = attempt WHERE false")
                else:
                    is_read_only = bool(connection.exec_driver_sql(_TRY).scalar())
                connection.rollback()
            return READ_ONLY if is_read_only else None
        except DBAPIError as error:
            return _reason(error)
        except SQLAlchemyError:  # no connection of the pool is free: all of them wait
            return SILENT
        except Exception as error:  # noqa: BLE001 - whatever it is, this thread has to live
            return Reason("database_untried", error=type(error).__name__)


def _reason(error: DBAPIError) -> str:
    code = getattr(error.orig, "pgcode", None)
    message = str(error.orig)
    if code in _READ_ONLY_CODES or "readonly database" in message:
        return READ_ONLY
    if code in _LOCKED_CODES or "database is locked" in message:
        return LOCKED
    return SILENT
