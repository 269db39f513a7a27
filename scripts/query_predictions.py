"""Look up stored predictions: by job, by day, by model, the last N; as a table, CSV or JSON.

    python -m scripts.query_predictions --last 20
    python -m scripts.query_predictions --day 2026-03-02 --model credit --format csv -o credit.csv
    python -m scripts.query_predictions --model credit@champion --wide --format csv

It only reads, from the database of DATABASE_URL. The same as SQL: docs/queries.sql.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

from sqlalchemy import Connection, Engine, Select, and_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.config.settings import get_settings
from shared.csv.output import escape
from shared.database.engine import make_engine
from shared.database.messages import explain_database_error
from shared.errors import NotFound
from shared.faults import counted
from shared.registry.versions import NAME, find_reference
from shared.startup.checks import check_file_is_there
from shared.stdout import discard, run
from shared.tables import Job, JobState, ModelInput, ModelOutput, ModelVersion

_DAY = timedelta(days=1)
_BATCH = 1_000  # rows that are fetched at once
_WIDE = "feature."  # what the names of features begin with, beside those of our own columns
_NARROW = 40  # characters of a cell in a table


@dataclass(frozen=True)
class Filters:
    """Which rows are wanted; None wants all."""

    id: str | None = None
    request: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    model: str | None = None
    state: str | None = None
    last: int | None = None


def build(filters: Filters) -> Select[*tuple[Any, ...]]:
    """Return the query: one row for each input, newest job first."""
    query: Select[*tuple[Any, ...]] = (
        select(
            Job.id.label("job_id"),
            ModelInput.row_index,
            ModelVersion.name.label("model"),
            ModelVersion.version,
            Job.state,
            ModelOutput.prediction,
            ModelOutput.label,
            ModelOutput.probability,
            ModelOutput.threshold,
            Job.created_at,
            Job.finished_at,
            ModelInput.faults,
            ModelInput.features,
        )
        .join(ModelInput, ModelInput.job_id == Job.id)
        .join(ModelVersion, ModelVersion.id == Job.model_version_id)
        .outerjoin(
            ModelOutput,
            and_(ModelOutput.input_id == ModelInput.id, ModelOutput.model_version_id == Job.model_version_id),
        )
        .order_by(Job.id.desc(), ModelInput.row_index)
    )
    if filters.id is not None:
        query = query.where(Job.id == filters.id)
    if filters.request is not None:
        query = query.where(Job.request_id == filters.request)
    if filters.since is not None:
        query = query.where(Job.created_at >= filters.since)
    if filters.until is not None:
        query = query.where(Job.created_at < filters.until)
    if filters.model is not None:
        name, _, version = filters.model.partition("@")
        query = query.where(ModelVersion.name == name)
        if version:
            query = query.where(ModelVersion.version == int(version))
    if filters.state is not None:
        query = query.where(Job.state == filters.state)
    return query if filters.last is None else query.limit(filters.last)


def read(connection: Connection, query: Select[*tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Yield the rows as JSON values, a batch at a time: exports may be larger than memory."""
    for row in connection.execution_options(yield_per=_BATCH).execute(query).mappings():
        yield {key: _value(value) for key, value in row.items()}


def _value(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(value) if isinstance(value, UUID) else value


def widen(rows: Iterator[dict[str, Any]], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows with a column for each feature in place of one for all."""
    for row in rows:
        features = row.pop("features")
        values = features if isinstance(features, dict) else {}  # what did not fit the card may be no object
        yield row | {_WIDE + name: values.get(name) for name in names}


def write_csv(rows: Iterator[dict[str, Any]], columns: Sequence[str], out: TextIO) -> int:
    """Write a header and the rows; return their number. A cell that a spreadsheet would run gets an apostrophe."""
    out.write(",".join(escape(column, ",") for column in columns) + "\n")
    count = 0
    for row in rows:
        out.write(",".join(escape(_text(row[column]), ",") for column in columns) + "\n")
        count += 1
    return count


def write_json(rows: Iterator[dict[str, Any]], _columns: Sequence[str], out: TextIO) -> int:
    """Write one JSON list, a row on each line; return the number of rows."""
    count = 0
    out.write("[")
    for count, row in enumerate(rows, 1):
        out.write(("\n" if count == 1 else ",\n") + json.dumps(row, ensure_ascii=False))
    out.write("\n]\n" if count else "]\n")
    return count


def write_jsonl(rows: Iterator[dict[str, Any]], _columns: Sequence[str], out: TextIO) -> int:
    """Write one JSON object a line; return the number of rows."""
    count = 0
    for row in rows:
        out.write(json.dumps(row, ensure_ascii=False) + "\n")
        count += 1
    return count


def write_table(rows: Iterator[dict[str, Any]], columns: Sequence[str], out: TextIO) -> int:
    """Write aligned columns for a terminal, without the features; return the number of rows."""
    shown = [column for column in columns if column != "features"]
    cells = [[_short(_text(row[column])) for column in shown] for row in rows]
    widths = [max(map(len, texts)) for texts in zip(shown, *cells, strict=True)]
    for line in (shown, *cells):
        out.write("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() + "\n")
    return len(cells)


WRITERS = {"table": write_table, "csv": write_csv, "json": write_json, "jsonl": write_jsonl}


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _short(text: str) -> str:
    clean = "".join(letter if letter.isprintable() else " " for letter in text)  # no terminal's escape sequences
    return clean if len(clean) <= _NARROW else clean[: _NARROW - 1] + "…"


def _numbered(engine: Engine, model: str | None) -> str | None:
    """Return a model with the number of its version in place of an alias; raise NotFound when nothing has the alias."""
    at, what = (model or "").partition("@")[1:]
    if model is None or not at or what.isdecimal():
        return model
    with Session(engine) as session:
        version = find_reference(session, model)
    return f"{version.name}@{version.version}"


def _feature_names(connection: Connection, model: str) -> list[str]:
    """Return the names of every feature that the model's versions have, in the order of their cards."""
    name, _, version = model.partition("@")
    query = select(ModelVersion.card).where(ModelVersion.name == name).order_by(ModelVersion.version.desc())
    if version:
        query = query.where(ModelVersion.version == int(version))
    cards = connection.execute(query).scalars()
    return list(dict.fromkeys(chain.from_iterable((f["name"] for f in card["features"]) for card in cards)))


@contextmanager
def _opened(file: Path | None) -> Iterator[TextIO]:
    """Yield the terminal, or a file that is there under its name when it is whole."""
    if file is None:
        yield sys.stdout
        sys.stdout.flush()  # a full disk is told now, not when Python ends
        return
    if file.exists() and not file.is_file():  # a pipe or /dev/stdout: another file must not take its place
        with file.open("w", encoding="utf-8", newline="") as out:
            yield out
        return
    unfinished = file.with_name(file.name + ".part")
    try:
        with unfinished.open("w", encoding="utf-8", newline="") as out:
            yield out
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _run(engine: Engine, options: argparse.Namespace) -> int:
    options.model = _numbered(engine, options.model)
    with engine.connect() as connection:
        query = build(Filters(**{name: getattr(options, name) for name in Filters.__dataclass_fields__}))
        rows = read(connection, query)
        columns = [column.name for column in query.selected_columns]
        if options.wide:
            names = _feature_names(connection, options.model)
            rows = widen(rows, names)
            columns = [column for column in columns if column != "features"] + [_WIDE + name for name in names]
        with _opened(options.output) as out:
            return WRITERS[options.format](rows, columns, out)


def _day(text: str) -> datetime:
    try:
        day = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
        _ = day + _DAY
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("write a day as 2026-03-02") from None
    return day


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError("a job's id is a UUID, as the 202 gave it") from None


def _model(text: str) -> str:
    name, at, what = text.partition("@")
    is_version = what.isdecimal() and len(what) < 10
    if not name.isprintable() or not name or (at and not is_version and not NAME.fullmatch(what)):
        raise argparse.ArgumentTypeError("write it as name, name@version or name@alias, e.g. credit@2")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 2**31:
        raise argparse.ArgumentTypeError("a number of rows from 1 on")
    return int(text)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.query_predictions", description="Stored predictions.")
    parser.add_argument("--id", type=_uuid, help="the rows of one job")
    parser.add_argument("--request", metavar="ID", help="the rows of the requests with this X-Request-Id")
    parser.add_argument("--day", type=_day, metavar="YYYY-MM-DD", help="accepted on this day (UTC)")
    parser.add_argument("--since", type=_day, metavar="YYYY-MM-DD", help="accepted on this day (UTC) or later")
    parser.add_argument("--until", type=_day, metavar="YYYY-MM-DD", help="accepted before this day (UTC)")
    parser.add_argument("--model", type=_model, metavar="NAME[@VERSION|@ALIAS]", help="asked of this model")
    parser.add_argument("--state", choices=[state.value for state in JobState], help="whose job is in this state")
    parser.add_argument("--last", type=_count, metavar="N", help="the newest N rows only")
    parser.add_argument("--format", choices=WRITERS, default="table", help="how it is written (table)")
    parser.add_argument("--wide", action="store_true", help="a column for each feature; needs --model")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write it there")
    options = parser.parse_args(arguments)
    if options.day is not None:
        if options.since is not None or options.until is not None:
            parser.error("--day and --since or --until contradict each other: give one of them")
        options.since, options.until = options.day, options.day + _DAY
    if options.wide and options.model is None:
        parser.error("--wide needs --model: models have different features")
    if options.format == "table" and options.last is None and options.id is None and options.request is None:
        options.last = 100  # a terminal is no place for millions of rows
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the query; return 0, 1 where nothing was found, no version has the alias or the database cannot be read."""
    options = _parse(arguments)
    settings = get_settings()
    check_file_is_there(settings.database)
    engine = make_engine(settings.database, pool_size=1).execution_options(read_only=True, postgresql_readonly=True)
    try:
        count = _run(engine, options)
    except SQLAlchemyError as error:
        print(f"query_predictions: {explain_database_error(error)}", file=sys.stderr)
        return 1
    except NotFound as error:
        print(f"query_predictions: {error.detail}", file=sys.stderr)
        return 1
    except OSError as error:
        if options.output is None:
            if isinstance(error, BrokenPipeError):
                raise  # `| head` has seen enough: `run` ends it
            discard()
        print(
            f"query_predictions: {options.output or 'the output'} cannot be written ({error.strerror})", file=sys.stderr
        )
        return 1
    finally:
        engine.dispose()
    where = "" if options.output is None else f" in {options.output}"
    print(f"{counted(count, 'row')}{where}", file=sys.stderr)
    return 0 if count else 1


if __name__ == "__main__":
    sys.exit(run(main))
