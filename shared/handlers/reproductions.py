"""Past decisions made again: the jobs `reproduce`. Each is claimed alone, and done in a process of its own.

That process reads the artefact anew by its SHA-256, and knows nothing of the process whose score is doubted. The same
in both runtimes: a worker of the bulk lane calls it, or a thread of the sync runtime.
"""

import json
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

import shared
from shared.config.settings import Settings
from shared.handlers.registrations import store_end, waiting_for
from shared.jobs import registrations, reproductions
from shared.jobs.transitions import Claim
from shared.observability.logs import bound

if TYPE_CHECKING:
    from shared.registry.proof import NotProved

log = logging.getLogger(__name__)

CHILD = "shared.handlers.reproduction_process"
MAX_REPORT = 10_000_000  # bytes


def reproduce(
    engine: Engine, settings: Settings, held: Claim, *, is_stopping: Callable[[], bool] = lambda: False
) -> bool:
    """Score the rows of a claimed job again, and store what came of it; or end the job as failed with the reason.

    Return whether the job has ended; False: another holds it, or this process stops.
    """
    from shared.registry.proof import NotProved, NotWanted

    with bound(job_id=held.job_id, request_id=held.request_id):
        with engine.connect() as connection:
            source, row = reproductions.find_source(connection, held.job_id)
        try:
            report = _apart(settings, held, source, row, waiting_for(engine, held, is_stopping))
        except NotWanted:
            return not is_stopping() and store_end(engine, lambda connection: registrations.cancel(connection, held))
        except NotProved as reason:
            code, message = reason.code, reason.message.replace(str(settings.models), "MODELS_DIR")
            log.warning("a decision could not be made again (%s)", code)
            return store_end(
                engine, lambda connection: registrations.fail(connection, held, code=code, message=message)
            )
        return store_end(engine, lambda connection: reproductions.succeed(connection, held, report))


def _apart(
    settings: Settings, held: Claim, source: str | None, row: int | None, is_wanted: Callable[[], bool]
) -> dict[str, Any]:
    """Return the report of a process that scores again; raise NotProved with the reason where there is none."""
    from shared.registry.proof import Limits, NotProved, run_apart

    if source is None:
        raise NotProved("source_erased", "the job whose rows were to be scored again was erased")
    limits = Limits(held.timeout_seconds, settings.model_proof_bytes, settings.max_model_bytes)
    root = str(Path(shared.__file__).resolve().parents[1])
    arguments = [CHILD, source, "all" if row is None else str(row), str(os.getpid())]
    with tempfile.TemporaryFile() as output:
        try:
            code = run_apart(arguments, limits, is_wanted, env=os.environ | {"PYTHONPATH": root}, output=output)
        except NotProved as reason:
            raise _in_words(reason, held, settings) from reason
        output.seek(0)
        content = output.read(MAX_REPORT + 1)
    try:
        outcome: dict[str, Any] = json.loads(content)
    except ValueError:
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        raise NotProved(
            "not_reproduced",
            f"the process that scored again ended {how}: `python -m shared.registry reproduce {source}` where the "
            "artefacts lie shows why",
        ) from None
    if "error" in outcome:
        raise NotProved(outcome["error"], outcome["message"].rstrip("."))
    return outcome


def _in_words(reason: "NotProved", held: Claim, settings: Settings) -> "NotProved":
    """Return the reason why there is no report, in the words of a reproduction."""
    from shared.registry.proof import NotProved

    message = {
        "timeout": f"to score again took longer than {held.timeout_seconds:g} s (MODEL_PROOF_SECONDS), and its process "
        "was ended: name a row",
        "out_of_memory": f"to score again took more than {settings.model_proof_bytes / 1e9:.1f} GB of memory "
        "(MODEL_PROOF_BYTES): name a row",
    }
    return NotProved(reason.code, message.get(reason.code, reason.message))
