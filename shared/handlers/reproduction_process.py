"""The process that makes a decision again: `python -m shared.handlers.reproduction_process JOB ROW|all PARENT`.

It reads the database, loads the artefact by its SHA-256, and prints the report as JSON, or {error, message}.
"""

# ruff: noqa: T201 - its output is what it is for

import json
import sys
from typing import Any

from shared.child import end_first, end_with_parent, limit_this_process
from shared.config.settings import get_settings
from shared.database.engine import get_engine, reader
from shared.errors import GuichetError
from shared.registry.proof import NICENESS
from shared.rescoring.reproduce import reproduce

MAX_ROWS = 100  # that differ, in the report


def main(job_id: str, row: int | None, parent: int) -> None:
    """Score a stored row of a job again, or with None every row, and print what came of it."""
    end_with_parent(parent)
    settings = get_settings()
    limit_this_process(memory_bytes=settings.model_proof_bytes, niceness=NICENESS)
    end_first()
    outcome: dict[str, Any]
    try:
        with reader(get_engine()).connect() as connection:
            reproduction = reproduce(connection, job_id, row, models_dir=settings.models, store=settings.models_uri)
        outcome = reproduction.report()
        del outcome["folder"]  # where that is, no caller has to know
        differing = [each for each in outcome["rows"] if each["changed"]]
        if len(outcome["rows"]) > 1:
            outcome["rows"] = differing[:MAX_ROWS]
        folder = str(settings.models)
        outcome["changed"] = {part: text.replace(folder, "MODELS_DIR") for part, text in outcome["changed"].items()}
    except GuichetError as error:
        outcome = {"error": error.code, "message": error.detail}
    except MemoryError:
        outcome = {"error": "out_of_memory", "message": "to score again took more memory than MODEL_PROOF_BYTES allows"}
    print(json.dumps(outcome, default=str))


if __name__ == "__main__":
    main(sys.argv[1], None if sys.argv[2] == "all" else int(sys.argv[2]), int(sys.argv[3]))
