"""`make samples`: train two example models, score some rows, and write them as CSV and SQL to docs/samples."""

import io
import json
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection
from sqlalchemy.orm import Session

from examples.credit.train import train as train_credit
from examples.energy.train import train as train_energy
from scripts.checkout import ROOT
from scripts.migrations import alembic
from scripts.query_predictions import Filters, build, read, write_csv
from shared.database.engine import make_engine
from shared.faults import Fault
from shared.registry.adding import register
from shared.registry.loading import LoadedModel, load
from shared.scoring.batch import score_rows
from shared.scoring.outputs import Output
from shared.tables import ModelVersion

FOLDER = ROOT / "docs" / "samples"
_FIRST = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
_TRAIN = {"credit": train_credit, "energy": train_energy}
_FAULT = Fault("/rows/1/age_years", "range", "must be a number between 0 and 130")
_LATE = Fault("", "timeout", "the job ran longer than its timeout of 30 s")

_SQL_BEFORE = """-- Sample rows for docs/queries.sql and scripts/query_predictions.py: two models on synthetic data.
-- `make samples` writes this file. It runs on PostgreSQL and on SQLite, after `python -m alembic upgrade head`, and may
-- run twice. The versions are registered without their files, so that no service can score with them: give the rows a
-- database of their own.
BEGIN;
"""


@dataclass(frozen=True)
class Sample:
    """One job of the samples."""

    model: str
    rows: list[dict[str, Any]]
    outcomes: list[Output | Fault]


def main() -> int:
    """Write the files; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="guichet-samples-") as folder:
        url = f"sqlite:///{folder}/guichet.db"
        alembic("upgrade", "head", url=url)
        engine = make_engine(url)
        versions: dict[str, ModelVersion] = {}
        samples: list[Sample] = []
        with Session(engine) as session, redirect_stdout(sys.stderr):
            for name, train in _TRAIN.items():
                version = register(session, train(), models_dir=Path(folder))
                versions[name] = version
                samples += _ask(name, load(version, Path(folder)))
            sql = render_sql(versions, samples)
        engine.dispose()
        (FOLDER / "predictions.sql").write_text(sql, encoding="utf-8")
        url = f"sqlite:///{folder}/samples.db"
        alembic("upgrade", "head", url=url)
        load_sqlite(Path(folder) / "samples.db")
        engine = make_engine(url)
        with engine.connect() as connection:
            for name, text in render_csv(connection).items():
                (FOLDER / name).write_text(text, encoding="utf-8")
        engine.dispose()
    print(f"written: {FOLDER.relative_to(ROOT)}")
    return 0


def load_sqlite(file: Path) -> None:
    """Run predictions.sql on a SQLite file that has the tables."""
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript((FOLDER / "predictions.sql").read_text(encoding="utf-8"))


def render_csv(connection: Connection) -> dict[str, str]:
    """Return the files: the inputs of each model, a column for each feature, and the outputs of all."""
    rows = list(read(connection, build(Filters())))
    inputs = {
        f"inputs_{name}.csv": [row for row in rows if row["model"] == f"{name}_sample"] for name in sorted(_TRAIN)
    }
    files = {name: _csv([_flat(row) for row in chosen]) for name, chosen in inputs.items()}
    return files | {"outputs.csv": _csv([{k: v for k, v in row.items() if k != "features"} for row in rows])}


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {"job_id": row["job_id"], "row_index": row["row_index"], **row["features"]}


def _csv(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    write_csv(iter(rows), list(rows[0]), out)
    return out.getvalue()


def _ask(name: str, model: LoadedModel) -> Iterator[Sample]:
    """Yield single rows, a batch with a row that did not fit, and a job that took too long."""
    rows = [dict(row) for row in model.reference[:8]]
    scored = score_rows(model, rows)
    for row, outcome in zip(rows[:5], scored[:5], strict=True):
        yield Sample(name, [row], [outcome])
    if name == "credit":
        yield Sample(name, [rows[5], rows[6] | {"age_years": 900.0}, rows[7]], [scored[5], _FAULT, scored[7]])
        yield Sample(name, [rows[6]], [_LATE])


def render_sql(versions: dict[str, ModelVersion], samples: list[Sample]) -> str:
    """Return the INSERTs: versions, then jobs with their inputs and outputs, some hours apart."""
    lines = [_SQL_BEFORE]
    for name, version in versions.items():
        card = dict(version.card) | {"name": f"{name}_sample"}
        values = [f"{name}_sample", 1, version.sha256, f"{name}_sample/1", card, version.scorer, _FIRST]
        columns = "name, version, sha256, uri, card, scorer, created_at"
        lines.append(f"INSERT INTO model_versions ({columns})\nVALUES ({_values(values)})\nON CONFLICT DO NOTHING;\n")
    for number, sample in enumerate(samples):
        lines += _job(number, sample)
    return "\n".join([*lines, "COMMIT;\n"])


def _job(number: int, sample: Sample) -> Iterator[str]:
    at = _FIRST + timedelta(hours=5 * number, seconds=7 * number)
    milliseconds = int(at.timestamp() * 1000)
    job_id = f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7000-8000-{number + 1:012x}"  # a UUIDv7
    # Our own rows, as literals, for a file that people run.
    version = f"(SELECT id FROM model_versions WHERE name = {_value(sample.model + '_sample')} AND version = 1)"  # noqa: S608
    faults = [outcome for outcome in sample.outcomes if isinstance(outcome, Fault)]
    failed = len(faults) == len(sample.rows)
    done = at + timedelta(seconds=30 if failed else 0, milliseconds=12 + number)
    error = {"code": faults[0].code, "message": faults[0].message} if failed else None
    kind = "predict" if len(sample.rows) == 1 else "batch"
    facts: list[Any] = [job_id, kind, "interactive", "failed" if failed else "succeeded", f"sample-{number + 1}"]
    facts += [len(sample.rows), len(faults), 1, 3, 30.0, at, at, done, error]
    yield (
        "INSERT INTO jobs (id, kind, lane, state, request_id, row_count, failed_count, attempt, max_attempts, "
        "timeout_seconds,\n  created_at, started_at, finished_at, error, model_version_id)\n"
        f"VALUES ({_values(facts)}, {version})\nON CONFLICT DO NOTHING;"
    )
    for index, (row, outcome) in enumerate(zip(sample.rows, sample.outcomes, strict=True)):
        fault = [
            {"pointer": f.pointer, "code": f.code, "message": f.message} for f in [outcome] if isinstance(f, Fault)
        ]
        yield (
            "INSERT INTO model_inputs (job_id, row_index, features, faults, created_at)\n"
            f"VALUES ({_values([job_id, index, row, fault or None, at])})\nON CONFLICT DO NOTHING;"
        )
        if isinstance(outcome, Output):
            score = [outcome.task, outcome.prediction, outcome.label, outcome.probability, outcome.threshold, done]
            yield (
                "INSERT INTO model_outputs (task, prediction, label, probability, threshold, created_at, input_id, "
                f"model_version_id)\nSELECT {_values(score)}, id, {version}\n"
                f"FROM model_inputs WHERE job_id = {_value(job_id)} AND row_index = {index}\nON CONFLICT DO NOTHING;"
            )
    yield ""


def _values(values: list[Any]) -> str:
    return ", ".join(map(_value, values))


def _value(value: object) -> str:
    """Return an SQL literal that both dialects read alike."""
    if value is None:
        return "NULL"
    if isinstance(value, datetime):
        return f"'{value.isoformat(sep=' ', timespec='milliseconds')}'"
    if isinstance(value, dict | list):
        value = orjson.dumps(value).decode()
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return json.dumps(value)


if __name__ == "__main__":
    sys.exit(main())
