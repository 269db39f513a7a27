"""A model in a process of its own, for scoring in the sync runtime.

Native code of a model may loop for ever with the interpreter's lock held, or take its process down; a thread of it
cannot be ended. So each model version has a process: whoever waits for an answer too long ends it, and the next call
starts another. The processes are forked from one that has imported the libraries and never loads a model.
"""

import faulthandler
import logging
import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cards.card import Card
from shared.errors import ArtefactError, GuichetError, ModelError
from shared.handlers.table import CHUNK_HANDLERS, HANDLERS
from shared.observability.logs import Format, configure_logging, current_format, identify
from shared.observability.redaction import safe_text
from shared.registry.loaded_models import Versions, load_here
from shared.tables import ModelVersion

if TYPE_CHECKING:
    from shared.jobs.chunks.storage import Lines
    from shared.jobs.chunks.transitions import ChunkClaim
    from shared.tables import ChunkState

log = logging.getLogger(__name__)

LOAD_SECONDS = 600.0  # how long a model may take to be loaded
GRACE_SECONDS = 10.0  # after its deadline, a process that nobody ended, because its parent has died, ends itself
PRELOADED = [
    "shared.registry.loading",
    "shared.handlers.table",
    "sklearn.pipeline",
    "sklearn.ensemble",
    "sklearn.linear_model",
]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOADED)
_starting = threading.Lock()  # multiprocessing's own books are no place for two threads


class ProcessLost(Exception):
    """The process ended while it worked: its row may have taken it down."""


class TooLate(Exception):
    """The process did not answer in time, and was ended."""


class ModelProcess:
    """One process with one model version. One call at a time; safe from any thread."""

    def __init__(self, version: ModelVersion, directory: Path) -> None:
        self._version = version
        self._directory = directory
        self._lock = threading.Lock()
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self._is_closed = False
        self.card = Card.model_validate(version.card | {"sha256": version.sha256})
        self.busy_since: float | None = None  # when the present call began, by the monotonic clock
        self.lost_at: list[float] = []  # when a row took the process down or was too slow, the last ones

    @property
    def label(self) -> str:
        """`name@version`."""
        return f"{self.card.name}@{self.card.version}"

    def twin(self) -> "ModelProcess":
        """Return another process for the same version, not yet started."""
        return ModelProcess(self._version, self._directory)

    def load(self) -> None:
        """Start the process and load the model, if that is not so yet; raise ModelError when it cannot be."""
        with self._lock:
            self._load()

    def compute(self, kind: str, rows: list[dict[str, Any]], seconds: float, *, by_pipeline: bool = False) -> list[Any]:
        """Have the handler of a kind of job compute canonical rows (n dicts); return n results or faults.

        With `by_pipeline`, the estimator as it was trained scores them.
        Raises TooLate, ProcessLost, MemoryError, or ModelError when the model cannot be loaded.
        """
        results: list[Any] = self._call("rows", (kind, rows, by_pipeline), seconds)
        return results

    def compute_chunk(self, claim: "ChunkClaim", seconds: float) -> "tuple[Lines, ChunkState]":
        """Have the handler of a chunk's kind compute it; raises as `compute` does."""
        result: tuple[Lines, ChunkState] = self._call("chunk", claim, seconds)
        return result

    def close(self) -> None:
        """End the process, also in the middle of a call; it is not started again."""
        self._is_closed = True
        self._end()

    def _call(self, kind: str, work: object, seconds: float) -> Any:  # noqa: ANN401 - by kind
        with self._lock:
            self.busy_since = time.monotonic()
            try:
                self._load()
                connection = self._connection
                assert connection is not None
                connection.send((kind, work, seconds))
                if not connection.poll(seconds):
                    raise TooLate
                outcome, result = connection.recv()
            except (EOFError, OSError) as error:
                self._lose("ended its process on a row, or was ended by the system")
                raise ProcessLost from error
            except TooLate:
                self._lose(f"did not come back from a row within {seconds:g} s; its process is ended")
                raise
            finally:
                self.busy_since = None
        if outcome == "memory":
            raise MemoryError
        if outcome == "failed":
            raise GuichetError(f"{self.label} could not score: {result}. The log has the reason.")
        return result

    def _lose(self, what: str) -> None:
        log.error("%s %s", self.label, what)
        self.lost_at = [*self.lost_at[-99:], time.monotonic()]
        self._end()

    def _load(self) -> None:
        if self._process is not None and self._process.is_alive():
            return
        self._end()
        if self._is_closed:
            raise ArtefactError("The service stops.")
        near, far = _context.Pipe()
        with _starting:
            process = _context.Process(
                target=_serve,
                args=(far, self._version, self._directory, logging.getLogger().level, current_format()),
                name=f"model {self.label}",
                daemon=True,
            )
            process.start()
        far.close()
        self._process, self._connection = process, near
        try:
            if not near.poll(LOAD_SECONDS):
                raise ArtefactError(f"It could not be loaded within {LOAD_SECONDS:g} s.")
            refusal = near.recv()
        except (EOFError, OSError) as error:
            self._end()
            raise ArtefactError("Its process ended while it was loaded: there may be too little memory.") from error
        except ArtefactError:
            self._end()
            raise
        if refusal is not None:
            self._end()
            raise refusal

    def _end(self) -> None:
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is not None:
            process.kill()
            process.join(5)
        if connection is not None:
            connection.close()


class ModelProcesses(Versions[ModelProcess]):
    """The model versions that this service scores with, each in a process of its own."""

    def _open(self, version: ModelVersion, *, patient: bool) -> ModelProcess:
        process = ModelProcess(version, self._directory)
        process.load()
        return process

    def close(self) -> None:
        """End every process."""
        for process in list(self._loaded.values()):
            process.close()


# ── in the process ───────────────────────────────────────────────────────────────────────────────────────────────


def _serve(connection: Connection, version: ModelVersion, directory: Path, log_level: int, log_format: Format) -> None:
    """Load the model, report it, then answer calls until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
    configure_logging(logging.getLevelName(log_level), form=log_format)
    identify(model=f"{version.name}@{version.version}")
    from shared.registry.loading import by_pipeline

    try:
        model = load_here(version, directory)
    except ModelError as error:
        connection.send(type(error)(error.detail))
        return
    except BaseException as error:
        log.exception("%s@%s could not be loaded", version.name, version.version)
        connection.send(ArtefactError(f"It could not be loaded ({safe_text(error)}); the log says where."))
        return
    connection.send(None)
    with open(os.devnull, "w") as nowhere:
        while True:
            try:
                kind, what, seconds = connection.recv()
            except EOFError:
                return
            # It needs no interpreter: it works also in native code that holds the lock.
            faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=nowhere)
            answer: tuple[str, Any]
            try:
                if kind == "rows":
                    name, rows, is_suspended = what
                    answer = "done", HANDLERS[name].compute(by_pipeline(model) if is_suspended else model, rows)
                else:
                    scored_by = by_pipeline(model) if what.by_pipeline else model
                    answer = "done", CHUNK_HANDLERS[what.kind].compute(scored_by, what)
            except MemoryError:
                answer = "memory", None
            except Exception as error:
                log.exception("%s@%s could not score", version.name, version.version)
                answer = "failed", type(error).__name__
            except BaseException as error:  # noqa: BLE001 - `sys.exit`, say: the process ends as the model wishes
                log.error("%s@%s ended its process: %s", version.name, version.version, type(error).__name__)
                os._exit(1)
            faulthandler.cancel_dump_traceback_later()
            connection.send(answer)
