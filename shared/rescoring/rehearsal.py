"""Scoring the same stored rows in processes with other libraries: what one is given, and what it answers."""

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, select

from shared.faults import Fault
from shared.rescoring.bits import bits
from shared.tables import ModelInput, ModelOutput, ModelVersion

PIECE = 100  # rows that are scored at once: few enough that trees are never handed to the estimator by a measured time
TASK, ROWS = "task.json", "rows.jsonl"
_VERSION = ("id", "name", "version", "sha256", "uri", "card", "scorer")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row is stored."""

    job_id: str
    row: int


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A process's results for the rows that it received."""

    python: str
    libraries: dict[str, str]
    scorer: str
    scores: list[list[Any]]  # by row: every number of its score in hexadecimal, or the fault that it has


def read_history(connection: Connection, model_version_id: int, *, limit: int) -> tuple[list[Place], list[Row]]:
    """Return the last rows that a version has scored, the oldest first, and where they are stored."""
    rows = connection.execute(
        select(ModelInput.job_id, ModelInput.row_index, ModelInput.features)
        .join(ModelOutput, ModelOutput.input_id == ModelInput.id)
        .where(ModelOutput.model_version_id == model_version_id)
        .order_by(ModelOutput.id.desc())
        .limit(limit)
    ).all()
    rows = rows[::-1]
    return [Place(str(job_id), index) for job_id, index, _ in rows], [features for *_, features in rows]


def write_task(folder: Path, version: ModelVersion, models_dir: Path, rows: Sequence[Row]) -> None:
    """Write what a process is to score into a folder."""
    values = {name: getattr(version, name) for name in _VERSION}
    (folder / TASK).write_text(json.dumps({"version": values, "models_dir": str(models_dir.absolute())}))
    (folder / ROWS).write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def score_in_this_process(folder: Path, result: Path) -> None:
    """Load the version of a task, by its SHA-256 as ever, score its rows and write what they get."""
    from shared.registry.loading import as_in_a_worker, load
    from shared.scoring.batch import score_rows
    from shared.scoring.threads import prefer_one_thread

    prefer_one_thread()
    task = json.loads((folder / TASK).read_text())
    rows = [orjson.loads(line) for line in (folder / ROWS).read_bytes().splitlines()]
    with as_in_a_worker():
        model = load(ModelVersion(**task["version"]), Path(task["models_dir"]))
        outputs = [
            output for start in range(0, len(rows), PIECE) for output in score_rows(model, rows[start : start + PIECE])
        ]
    scores = [["fault", output.code] if isinstance(output, Fault) else list(bits(output)) for output in outputs]
    libraries = {name: _version(name) for name in {*model.card.libraries, "numpy", "scipy", "scikit-learn", "treelite"}}
    answer = Rehearsed(platform.python_version(), libraries, model.scorer.kind, scores)
    result.write_text(json.dumps(asdict(answer)))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
