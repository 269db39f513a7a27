"""`python -m worker.drift --model NAME --limit N`: compare the last scored rows with the reference, as files.

Writes drift_report.json, as other programs read it, and drift_report.html with plots, for people. The service's own
counters are at GET /drift; this reads the rows themselves.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.cards.card import Card
from shared.config.settings import Settings, get_settings
from shared.database.engine import make_engine, reader, take_time
from shared.database.messages import explain_database_error
from shared.errors import GuichetError, NotFound
from shared.monitoring.counting import read_reference
from shared.monitoring.drift.comparison import THRESHOLDS, compare
from shared.monitoring.drift.page import render_page
from shared.monitoring.drift.profiles import Bins, Profile, make_profile, score_values
from shared.monitoring.drift.windows import find_profile
from shared.stdout import run
from shared.tables import ModelAlias, ModelInput, ModelOutput, ModelVersion

FOLDER = Path("outputs/monitoring")
PIECE = 5_000  # rows that are counted at once
TOP = 10  # features of the two short lists


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m worker.drift", description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="name, name@3 or name@alias; without one the champion")
    parser.add_argument("--limit", type=_count, default=10_000, help="the last so many scored rows (default 10000)")
    parser.add_argument("--out", type=Path, default=FOLDER, help=f"folder of the files (default {FOLDER})")
    options = parser.parse_args(arguments)
    settings = get_settings()
    engine = make_engine(settings.database)
    try:
        report, page = make_report(engine, settings, options.model, options.limit)
        options.out.mkdir(parents=True, exist_ok=True)
        for name, content in (("drift_report.json", json.dumps(report, indent=1) + "\n"), ("drift_report.html", page)):
            (options.out / name).write_text(content, encoding="utf-8")
    except (GuichetError, SQLAlchemyError, OSError) as error:
        detail = error.detail if isinstance(error, GuichetError) else _reason(error)
        print(f"drift: {detail}", file=sys.stderr)
        return 1
    finally:
        engine.dispose()
    print(f"{report['level']}: {report['advice']}")
    print(f"written: {options.out / 'drift_report.json'}, {options.out / 'drift_report.html'}")
    return 0


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10**9:
        raise argparse.ArgumentTypeError("must be a number of rows from 1 on")
    return int(text)


def _reason(error: SQLAlchemyError | OSError) -> str:
    return (
        explain_database_error(error) if isinstance(error, SQLAlchemyError) else f"{error.filename}: {error.strerror}"
    )


def make_report(engine: Engine, settings: Settings, reference: str, limit: int) -> tuple[dict[str, Any], str]:
    """Return the report on the last `limit` scored rows of a version, and the page of it.

    Raises NotFound for a version that is not registered, ArtefactError or CardError where it has no reference.
    """
    with Session(reader(engine)) as session:
        version = _find_version(session, reference)
        stored = find_profile(session.connection(), version.id)
    card = Card.model_validate(version.card | {"sha256": version.sha256})
    profile = (
        make_profile(card, read_reference(engine, version, settings.models, settings.models_uri), None)
        if stored is None
        else stored.profile
    )
    rows, counts = _count_rows(engine, version.id, card, profile, limit)
    drift = asdict(compare(profile, counts, rows=rows, baseline=None, baseline_rows=profile.rows))
    features = drift["features"]
    by_missing = sorted(features, key=lambda each: -abs(each["missing_delta"]))
    report = {
        "model": version.name,
        "version": version.version,
        "generated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "n_ref_rows": profile.rows,
        "n_prod_rows": rows,
        "features_total": len(features),
        "level": drift["level"],
        "advice": drift["advice"],
        "thresholds": THRESHOLDS,
        "top_psi": [{key: each[key] for key in ("feature", "psi", "level")} for each in features[:TOP]],
        "top_missing_delta": [{key: each[key] for key in ("feature", "missing_delta")} for each in by_missing[:TOP]],
        "all_features": features,
        "score": drift["score"],
        "decision": drift["decision"],
    }
    plots: list[tuple[Bins, Sequence[int], Sequence[int]]] = [
        (bins, bins.reference, window) for bins, window in profile.split(counts)
    ]
    return report, render_page(report, plots)


def _find_version(session: Session, reference: str) -> ModelVersion:
    name, _, which = reference.partition("@")
    query = select(ModelVersion).where(ModelVersion.name == name)
    if which.isascii() and which.isdigit() and len(which) < 10:
        query = query.where(ModelVersion.version == int(which))
    else:
        query = query.join(ModelAlias, ModelAlias.model_version_id == ModelVersion.id)
        query = query.where(ModelAlias.alias == (which or "champion"))
    version = session.scalar(query)
    if version is None:
        labels = ", ".join(f"{row.name}@{row.version}" for row in session.scalars(select(ModelVersion))) or "none"
        raise NotFound(f"There is no model {reference[:70]!r}; there are: {labels}.")
    return version


def _count_rows(engine: Engine, version: int, card: Card, profile: Profile, limit: int) -> tuple[int, list[int]]:
    """Count the last rows of a version, read as a stream; return their number, and the counters."""
    query = (
        select(ModelOutput.prediction, ModelOutput.label, ModelOutput.probability, ModelInput.features)
        .join(ModelInput, ModelInput.id == ModelOutput.input_id)
        .where(ModelOutput.model_version_id == version)
        .order_by(ModelOutput.id.desc())
        .limit(limit)
    )
    total = np.zeros(sum(bins.width for bins in profile.all), dtype=np.int64)
    rows = 0
    with reader(engine).connect() as connection:
        take_time(connection)
        for piece in connection.execution_options(yield_per=PIECE).execute(query).partitions(PIECE):
            scores = [
                score_values(card, prediction=row.prediction, label=row.label, probability=row.probability)
                for row in piece
            ]
            total += np.array(profile.count([row.features for row in piece], scores))
            rows += len(piece)
    counts: list[int] = total.tolist()
    return rows, counts


if __name__ == "__main__":
    sys.exit(run(main))
