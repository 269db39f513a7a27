"""The process of a challenger: `python -m shared.rescoring.shadow_child FD`, which only shadow_process.py starts.

It loads one version and scores what it is sent; it has no database. Whatever the model does stays in here: its memory
is limited, it has the lowest priority, the system ends it first where memory is short, and it ends with its parent.
"""

import faulthandler
import logging
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import orjson

from shared.child import end_first, end_with_parent, limit_this_process
from shared.errors import ModelError
from shared.observability.logs import Format, configure_logging, identify
from shared.observability.redaction import safe_text
from shared.scoring.threads import prefer_one_thread

GRACE_SECONDS = 10.0  # after its deadline, a process that nobody ended, because its parent has died, ends itself

log = logging.getLogger(__name__)


def limit(memory_mb: int, niceness: int) -> None:
    """Bind this process: priority, memory, the order in which the system ends processes, and the life of the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    end_with_parent()
    end_first()
    limit_this_process(memory_bytes=memory_mb * 2**20, niceness=niceness)


class Answers:
    """The model's results for the sent rows."""

    def __init__(self, about: dict[str, Any]) -> None:
        from shared.comparison.fit import RowsOfOthers
        from shared.registry.loaded_models import load_here
        from shared.registry.loading import by_pipeline
        from shared.tables import ModelVersion

        self._model = load_here(ModelVersion(**about["version"]), Path(about["directory"]))
        self._exact = by_pipeline(self._model)
        self._others = RowsOfOthers(self._model.card)

    def score(self, rows: list[dict[str, Any]], foreign: list[int], *, is_exact: bool) -> list[Any]:
        """Return [prediction, label, probability] of each row, or the code of its fault.

        Rows whose places are in `foreign` are those of a version with another card: they are read as this one's.
        """
        from shared.faults import Fault
        from shared.scoring.batch import score_rows

        results: list[Any] = [None] * len(rows)
        for place in foreign:
            canonical, faults = self._others.read(rows[place])
            if canonical is None:
                results[place] = faults[0].code
            else:
                rows[place] = canonical
        good = [place for place, result in enumerate(results) if result is None]
        scores = score_rows(self._exact if is_exact else self._model, [rows[place] for place in good])
        for place, score in zip(good, scores, strict=True):
            results[place] = (
                score.code if isinstance(score, Fault) else [score.prediction, score.label, score.probability]
            )
        return results


def serve(connection: Connection) -> None:
    """Load the version that the first message names, report it, then answer until the other end is closed."""
    about = orjson.loads(connection.recv_bytes())
    limit(about["memory_mb"], about["niceness"])
    configure_logging(about["log_level"], form=cast(Format, about["log_form"]))
    identify(model=f"{about['version']['name']}@{about['version']['version']}")
    try:
        answers = Answers(about)
    except ModelError as error:
        connection.send_bytes(orjson.dumps({"refusal": error.detail}))
        return
    except MemoryError:
        connection.send_bytes(orjson.dumps({"is_full": True}))
        return
    except Exception as error:
        log.exception("the challenger could not be loaded")
        connection.send_bytes(orjson.dumps({"refusal": f"It could not be loaded ({safe_text(error)})."}))
        return
    connection.send_bytes(b"{}")
    with open(os.devnull, "w") as nowhere:
        while True:
            try:
                task, rows = orjson.loads(connection.recv_bytes()), connection.recv_bytes()
            except EOFError:
                return
            # It needs no interpreter: it works also in native code that holds the lock.
            faulthandler.dump_traceback_later(task["seconds"] + GRACE_SECONDS, exit=True, file=nowhere)
            try:
                answer = {"results": answers.score(orjson.loads(rows), task["foreign"], is_exact=task["is_exact"])}
            except MemoryError:
                answer = {"is_full": True}  # type: ignore[dict-item]
            except Exception as error:
                log.exception("the challenger could not score")
                answer = {"failure": type(error).__name__}  # type: ignore[dict-item]
            faulthandler.cancel_dump_traceback_later()
            connection.send_bytes(orjson.dumps(answer))


if __name__ == "__main__":
    prefer_one_thread()
    serve(Connection(int(sys.argv[1])))
